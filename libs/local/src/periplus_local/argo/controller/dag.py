"""DAG templates: each task runs once those that it depends on have ended."""

import asyncio
from typing import Any

from periplus_local.argo.controller import hooks, node_tree, outputs
from periplus_local.argo.controller.invocator import EMPTY_LOOP, Invocator, invocator_of
from periplus_local.argo.controller.nodes import FAILED, Node, is_fulfilled
from periplus_local.argo.controller.object_keys import check_keys
from periplus_local.argo.controller.template_call import FAIL_FAST_MESSAGE, StepError, TemplateExecution
from periplus_local.argo.errors import ArgoError
from periplus_manifest import depends
from periplus_manifest.errors import ManifestError

OMITTED = "omitted: depends condition not met"
# The words of `depends` for phases that it calls otherwise.
RESULT_OF_PHASE = {"Error": "Errored"}
Task = dict[str, Any]


async def run_dag(execution: TemplateExecution) -> Node:
    """Run a DAG to its end; raises ArgoError when its outputs cannot be resolved."""
    run = execution.run
    node = execution.node() or execution.start_node("DAG", "Running")
    if node["phase"] != "Running":
        run.nodes.set_phase(node, "Running", "")
    check_keys(run, execution.template)
    graph = TaskGraph(invocator_of(execution, node, "tasks"), execution.template["dag"], node)
    await graph.run_targets()
    return _end(execution, graph, node)


def _end(execution: TemplateExecution, graph: "TaskGraph", node: Node) -> Node:
    nodes, fail_fast = execution.run.nodes, execution.template["dag"].get("failFast", True)
    targets = {nodes.id_of(graph.node_name(name)): graph.tasks[name] for name in graph.targets}
    phase = node_tree.dag_phase(nodes, node, targets, fail_fast)
    if execution.run.shutdown and not execution.call.in_exit_handler:
        phase = "Failed"
    if graph.invocator.boundary.is_failing_fast:
        return nodes.set_phase(node, "Failed", FAIL_FAST_MESSAGE)
    is_failed = phase in FAILED
    dag_outputs = None if is_failed else outputs.resolve_outputs(execution.template, graph.invocator.scope)
    present = [target for target in targets if target in nodes.by_id]
    node["outboundNodes"] = [last for target in present for last in node_tree.outbound(nodes, target)]
    if is_failed:
        return nodes.set_phase(node, phase, "")
    if dag_outputs is not None:
        node["outputs"] = dag_outputs
        outputs.export_globals(execution.run, dag_outputs)
    return nodes.set_phase(node, "Succeeded", "")


class TaskGraph:
    """The tasks of one DAG, and how many dependencies of each have not ended yet."""

    def __init__(self, invocator: Invocator, spec: dict[str, Any], boundary: Node) -> None:
        """The graph of a `dag` within the boundary node."""
        self.invocator = invocator
        self.boundary = boundary
        self.tasks: dict[str, Task] = {task["name"]: task for task in spec["tasks"]}
        self.depends = {
            name: depends.parse(task["depends"]) if task.get("depends") else None
            for name, task in self.tasks.items()
        }
        self.dependencies = {name: self._dependencies(name) for name in self.tasks}
        self.targets = spec["target"].split() if spec.get("target") else self._default_targets()
        self.dependents: dict[str, list[str]] = {name: [] for name in self.tasks}
        self.unfinished_dependencies: dict[str, int] = {}
        self._group: asyncio.TaskGroup | None = None

    def _dependencies(self, name: str) -> list[str]:
        logic = self.depends[name]
        return sorted(logic.tasks) if logic else list(self.tasks[name].get("dependencies") or ())

    def _default_targets(self) -> list[str]:
        needed = {name for dependencies in self.dependencies.values() for name in dependencies}
        return sorted(name for name in self.tasks if name not in needed)

    def node_name(self, name: str) -> str:
        """The node name of a task or of one of its items."""
        return f"{self.boundary['name']}.{name}"

    async def run_targets(self) -> None:
        """Run the targets and all that they depend on."""
        order: list[str] = []
        stack = list(reversed(self.targets))
        while stack:
            name = stack.pop()
            if name in self.unfinished_dependencies:
                continue
            self.unfinished_dependencies[name] = len(self.dependencies[name])
            order.append(name)
            stack.extend(reversed(self.dependencies[name]))
        for name in order:
            for dependency in self.dependencies[name]:
                self.dependents[dependency].append(name)
        async with asyncio.TaskGroup() as group:
            self._group = group
            for name in [name for name in order if not self.unfinished_dependencies[name]]:
                group.create_task(self._run_task(name))

    async def _run_task(self, name: str) -> None:
        await self.invocator.run.turns.take()
        task = self.tasks[name]
        node = await self._run(name, task)
        if node is None:
            return
        self.invocator.publish_outputs(name, task, node)
        outputs.export_globals(self.invocator.run, node.get("outputs") if node["type"] != "Pod" else None)
        assert self._group is not None
        if self._is_shutting_down():
            return
        for dependent in self.dependents[name]:
            self.unfinished_dependencies[dependent] -= 1
            if not self.unfinished_dependencies[dependent]:
                self._group.create_task(self._run_task(dependent))

    async def _run(self, name: str, task: Task) -> Node | None:
        nodes, node_name = self.invocator.run.nodes, self.node_name(name)
        node = nodes.by_name(node_name)
        if is_fulfilled(node) and node is not None and node["type"] != "TaskGroup":
            async with hooks.running_hooks(self.invocator, task, name, node_name):
                pass  # a hook that was running when the server stopped goes on
            await self._run_exit_hook(name, task, node)
            return node
        if self.invocator.boundary.is_failing_fast:
            return None
        try:
            if not self._depends_is_met(name):
                return self._end_without_running(name, task, "Omitted", OMITTED)
            step, runs = self.invocator.fill(task)
            items = await self.invocator.expand_loop(step, runs)
            if items is None:
                return await self._run_once(name, name, task, step, self.boundary)
            if not items:
                return self._end_without_running(name, task, "Skipped", EMPTY_LOOP)
        except (ArgoError, ManifestError) as error:
            return self._end_without_running(name, task, "Error", str(error))
        return await self._run_loop(name, task, items)

    def _is_shutting_down(self) -> bool:
        """Whether the workflow is being stopped: then a DAG starts nothing more, not even a hook."""
        return bool(self.invocator.run.shutdown) and not self.invocator.in_exit_handler

    async def _run_exit_hook(self, name: str, task: Task, node: Node) -> None:
        if not self._is_shutting_down():
            await hooks.run_exit_hook(self.invocator, task, name, node)

    def _depends_is_met(self, name: str) -> bool:
        logic = self.depends[name]
        if logic is not None:
            return logic.evaluate({need: self._results(need) for need in self.dependencies[name]})
        return all(self._dependency_is_met(need) for need in self.dependencies[name])

    def _dependency_is_met(self, name: str) -> bool:
        """Whether a task of `dependencies` has a result that lets its dependents run."""
        continue_on = self.tasks[name].get("continueOn") or {}
        accepted = {"Succeeded", "Skipped", "Daemoned"}
        accepted |= {"Failed"} if continue_on.get("failed") else set()
        accepted |= {"Errored"} if continue_on.get("error") else set()
        return bool(self._results(name) & accepted)

    def _results(self, name: str) -> set[str]:
        """The results of an ended task as `depends` names them."""
        node = self.invocator.run.nodes.by_name(self.node_name(name))
        assert node is not None
        results = {str(RESULT_OF_PHASE.get(node["phase"], node["phase"]))}
        if node["type"] == "TaskGroup":
            phases = [item["phase"] for item in self.invocator.item_nodes.get(name, ())]
            if "Succeeded" in phases:
                results.add("AnySucceeded")
            if phases and all(phase == "Failed" for phase in phases):
                results.add("AllFailed")
        return results

    def _connect(self, name: str, node_name: str) -> None:
        """Make a node a child of the last nodes of its dependencies, or of the boundary."""
        nodes = self.invocator.run.nodes
        if not self.dependencies[name]:
            nodes.connect(self.boundary, node_name)
        for dependency in self.dependencies[name]:
            for last in node_tree.outbound(nodes, nodes.id_of(self.node_name(dependency))):
                nodes.connect(nodes.by_id[last], node_name)

    def _end_without_running(self, name: str, task: Task, phase: str, message: str) -> Node:
        nodes = self.invocator.run.nodes
        node = nodes.by_name(self.node_name(name))
        if node is not None:
            return nodes.set_phase(node, phase, message)
        node = self.invocator.start_node(self.node_name(name), "Skipped", phase, task, message=message)
        self._connect(name, node["name"])
        return node

    async def _run_loop(self, name: str, task: Task, items: list[tuple[str, Task]]) -> Node | None:
        nodes = self.invocator.run.nodes
        group = nodes.by_name(self.node_name(name))
        if group is None:
            group = self.invocator.start_node(self.node_name(name), "TaskGroup", "Running", task)
            self._connect(name, group["name"])
        async with hooks.running_hooks(self.invocator, task, name, group["name"]):
            ended = await asyncio.gather(
                *(self._run_once(name, item_name, task, step, group) for item_name, step in items)
            )
            started = [node for node in ended if node is not None]
            self.invocator.item_nodes[name] = started
            if len(started) < len(ended):
                nodes.set_phase(group, "Failed")
                return None
            failed = [node["phase"] for node in started if node["phase"] in FAILED]
            if not is_fulfilled(group):
                nodes.set_phase(group, failed[-1] if failed else "Succeeded")
        await self._run_exit_hook(name, task, group)
        return group

    async def _run_once(self, name: str, item_name: str, task: Task, step: Task, parent: Node) -> Node | None:
        """Run a task, or one item of its loop (then `parent` is the group); None when it was not started."""
        run, node_name = self.invocator.run, self.node_name(item_name)
        await run.turns.take()
        if run.nodes.by_name(node_name) is None:
            if parent is self.boundary:
                self._connect(name, node_name)
            else:
                run.nodes.connect(parent, node_name)
            skipped = self.invocator.skip_node(node_name, step)
            if skipped is not None:
                return skipped
        if parent is not self.boundary:  # the hooks of a loop, but for the exit hook, run for the group
            node = await self._execute(node_name, step, name)
        else:
            async with hooks.running_hooks(self.invocator, task, name, node_name):
                node = await self._execute(node_name, step, name)
        if node is None:
            run.nodes.disconnect(node_name)
        else:
            await self._run_exit_hook(name, task, node)
        return node

    async def _execute(self, node_name: str, step: Task, name: str) -> Node | None:
        run = self.invocator.run
        try:
            return await self.invocator.execute_template(run, self.invocator.call(node_name, step, name))
        except StepError as error:
            node = run.nodes.by_name(node_name)
            assert node is not None
            return run.nodes.set_phase(node, "Error", f"task '{node_name}' errored: {error}")
