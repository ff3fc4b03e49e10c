"""A template that is a graph: each task runs once what it depends on has come to rest."""

import asyncio
from typing import Any

from periplus_local.argo import hooks, outputs, tree
from periplus_local.argo.call import HELD_BACK, Frame, StepError
from periplus_local.argo.faults import Fault
from periplus_local.argo.nodes import FAILED, Node, fulfilled
from periplus_local.argo.place import EMPTY, Place, place_of
from periplus_manifest import depends
from periplus_manifest.errors import ManifestError

OMITTED = "omitted: depends condition not met"
RESULTS = {"Error": "Errored"}
Task = dict[str, Any]


async def run(frame: Frame) -> Node:
    """Run a DAG to its end; raises Fault when its outputs cannot be had."""
    run = frame.run
    node = frame.node() or frame.start("DAG", "Running")
    if node["phase"] != "Running":
        run.nodes.mark(node, "Running", "")
    graph = Graph(place_of(frame, node, "tasks"), frame.template["dag"], node)
    await graph.walk()
    return _ended(frame, graph, node)


def _ended(frame: Frame, graph: "Graph", node: Node) -> Node:
    nodes, fast = frame.run.nodes, frame.template["dag"].get("failFast", True)
    targets = {nodes.id_of(graph.node_name(name)): graph.tasks[name] for name in graph.targets}
    phase = tree.dag_phase(nodes, node, targets, fast)
    if frame.run.shutdown and not frame.call.exit_part:
        phase = "Failed"
    if graph.place.boundary.closed:
        return nodes.mark(node, "Failed", HELD_BACK)
    made = None if phase in FAILED else outputs.gathered(frame.template, graph.place.scope)
    present = [target for target in targets if target in nodes.by_id]
    node["outboundNodes"] = [leaf for target in present for leaf in tree.outbound(nodes, target)]
    if phase in FAILED:
        return nodes.mark(node, phase, "")
    if made is not None:
        node["outputs"] = made
        outputs.export(frame.run, made)
    return nodes.mark(node, "Succeeded", "")


class Graph:
    """The tasks of one DAG, what each waits for, and which have come to rest."""

    def __init__(self, place: Place, spec: dict[str, Any], boundary: Node) -> None:
        """The graph of a `dag` within the boundary node."""
        self.place = place
        self.boundary = boundary
        self.tasks: dict[str, Task] = {task["name"]: task for task in spec["tasks"]}
        self.logic = {
            name: depends.parse(task["depends"]) if task.get("depends") else None
            for name, task in self.tasks.items()
        }
        self.needs = {name: self._needs(name) for name in self.tasks}
        self.targets = spec["target"].split() if spec.get("target") else self._leaves()
        self.followers: dict[str, list[str]] = {name: [] for name in self.tasks}
        self.missing: dict[str, int] = {}
        self._group: asyncio.TaskGroup | None = None

    def _needs(self, name: str) -> list[str]:
        logic = self.logic[name]
        return sorted(logic.tasks) if logic else list(self.tasks[name].get("dependencies") or ())

    def _leaves(self) -> list[str]:
        needed = {need for needs in self.needs.values() for need in needs}
        return sorted(name for name in self.tasks if name not in needed)

    def node_name(self, name: str) -> str:
        """The node name of a task or of one of its iterations."""
        return f"{self.boundary['name']}.{name}"

    async def walk(self) -> None:
        """Run the targets and all that they depend on."""
        order: list[str] = []
        stack = list(reversed(self.targets))
        while stack:
            name = stack.pop()
            if name in self.missing:
                continue
            self.missing[name] = len(self.needs[name])
            order.append(name)
            stack.extend(reversed(self.needs[name]))
        for name in order:
            for need in self.needs[name]:
                self.followers[need].append(name)
        async with asyncio.TaskGroup() as group:
            self._group = group
            for name in [name for name in order if not self.missing[name]]:
                group.create_task(self._task(name))

    async def _task(self, name: str) -> None:
        task = self.tasks[name]
        node = await self._run(name, task)
        if node is None:
            return
        self.place.settle(name, task, node)
        outputs.export(self.place.run, node.get("outputs") if node["type"] != "Pod" else None)
        assert self._group is not None
        if self._ends():
            return
        for follower in self.followers[name]:
            self.missing[follower] -= 1
            if not self.missing[follower]:
                self._group.create_task(self._task(follower))

    async def _run(self, name: str, task: Task) -> Node | None:
        nodes, node_name = self.place.run.nodes, self.node_name(name)
        node = nodes.named(node_name)
        if fulfilled(node) and node is not None and node["type"] != "TaskGroup":
            async with hooks.watching(self.place, task, name, node_name):
                pass  # a hook that was running when the server ended goes on
            await self._exit(name, task, node)
            return node
        if self.place.boundary.closed:
            return None
        try:
            if not self._depends(name):
                return self._without(name, task, "Omitted", OMITTED)
            step, runs = self.place.filled(task)
            iterations = self.place.expanded(step, runs)
            if iterations is None:
                return await self._once(name, name, task, step, self.boundary)
            if not iterations:
                return self._without(name, task, "Skipped", EMPTY)
        except (Fault, ManifestError) as error:
            return self._without(name, task, "Error", str(error))
        return await self._loop(name, task, iterations)

    def _ends(self) -> bool:
        """Whether somebody ends the workflow: then a DAG begins nothing more, not even a hook."""
        return bool(self.place.run.shutdown) and not self.place.exit_part

    async def _exit(self, name: str, task: Task, node: Node) -> None:
        if not self._ends():
            await hooks.run_exit(self.place, task, name, node)

    def _depends(self, name: str) -> bool:
        logic = self.logic[name]
        if logic is not None:
            return logic.evaluate({need: self._results(need) for need in self.needs[name]})
        return all(self._passes(need) for need in self.needs[name])

    def _passes(self, need: str) -> bool:
        results = self._results(need)
        excused = self.tasks[need].get("continueOn") or {}
        passing = {"Succeeded", "Skipped", "Daemoned"}
        passing |= {"Failed"} if excused.get("failed") else set()
        passing |= {"Errored"} if excused.get("error") else set()
        return bool(results & passing)

    def _results(self, need: str) -> set[str]:
        node = self.place.run.nodes.named(self.node_name(need))
        assert node is not None
        results = {str(RESULTS.get(node["phase"], node["phase"]))}
        if node["type"] == "TaskGroup":
            phases = [item["phase"] for item in self.place.items.get(need, ())]
            if "Succeeded" in phases:
                results.add("AnySucceeded")
            if phases and all(phase == "Failed" for phase in phases):
                results.add("AllFailed")
        return results

    def _attach(self, name: str, node_name: str) -> None:
        nodes = self.place.run.nodes
        if not self.needs[name]:
            nodes.connect(self.boundary, node_name)
        for need in self.needs[name]:
            for leaf in tree.outbound(nodes, nodes.id_of(self.node_name(need))):
                nodes.connect(nodes.by_id[leaf], node_name)

    def _without(self, name: str, task: Task, phase: str, message: str) -> Node:
        node = self.place.run.nodes.named(self.node_name(name))
        if node is not None:
            return self.place.run.nodes.mark(node, phase, message)
        node = self.place.start(self.node_name(name), "Skipped", phase, task, message=message)
        self._attach(name, node["name"])
        return node

    async def _loop(self, name: str, task: Task, iterations: list[tuple[str, Task]]) -> Node | None:
        nodes = self.place.run.nodes
        group = nodes.named(self.node_name(name))
        if group is None:
            group = self.place.start(self.node_name(name), "TaskGroup", "Running", task)
            self._attach(name, group["name"])
        async with hooks.watching(self.place, task, name, group["name"]):
            ran = await asyncio.gather(
                *(self._once(name, own, task, step, group) for own, step in iterations)
            )
            made = [node for node in ran if node is not None]
            self.place.items[name] = made
            if len(made) < len(ran):
                nodes.mark(group, "Failed")
                return None
            failed = [node["phase"] for node in made if node["phase"] in FAILED]
            if not fulfilled(group):
                nodes.mark(group, failed[-1] if failed else "Succeeded")
        await self._exit(name, task, group)
        return group

    async def _once(self, name: str, own: str, task: Task, step: Task, above: Node) -> Node | None:
        run, node_name = self.place.run, self.node_name(own)
        if run.nodes.named(node_name) is None:
            if above is self.boundary:
                self._attach(name, node_name)
            else:
                run.nodes.connect(above, node_name)
            skipped = self.place.skipped(node_name, step)
            if skipped is not None:
                return skipped
        if above is not self.boundary:  # the other hooks of a loop are those of its group
            node = await self._execute(node_name, step, name)
        else:
            async with hooks.watching(self.place, task, name, node_name):
                node = await self._execute(node_name, step, name)
        if node is None:
            run.nodes.disconnect(node_name)
        else:
            await self._exit(name, task, node)
        return node

    async def _execute(self, node_name: str, step: Task, name: str) -> Node | None:
        run = self.place.run
        try:
            return await self.place.execute(run, self.place.call(node_name, step, name))
        except StepError as error:
            node = run.nodes.named(node_name)
            assert node is not None
            return run.nodes.mark(node, "Error", f"task '{node_name}' errored: {error}")
