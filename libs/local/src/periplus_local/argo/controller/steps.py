"""Steps templates: groups of steps, one group after another, the steps of a group at the same time."""

import asyncio
from typing import Any

from periplus_local.argo.controller import hooks, node_tree, outputs
from periplus_local.argo.controller.invocator import EMPTY_LOOP, Invocator, invocator_of
from periplus_local.argo.controller.nodes import FAILED, Node, is_fulfilled
from periplus_local.argo.controller.object_keys import check_keys
from periplus_local.argo.controller.template_call import FAIL_FAST_MESSAGE, StepError, TemplateExecution
from periplus_local.argo.errors import ArgoError, invalid_argument
from periplus_manifest.errors import ManifestError

Step = dict[str, Any]
# A call of a group: the step as written, the name of its node below the group's, the step filled in.
StepCall = tuple[Step, str, Step]
CONTINUE_ON_FIELD = {"Failed": "failed", "Error": "error"}


async def run_steps(execution: TemplateExecution) -> Node:
    """Run a steps template to its end; raises ArgoError when its outputs cannot be resolved."""
    run = execution.run
    node = execution.node() or execution.start_node("Steps", "Running")
    if node["phase"] != "Running":
        run.nodes.set_phase(node, "Running", "")
    check_keys(run, execution.template)
    invocator = invocator_of(execution, node, "steps")
    previous: Node | None = None
    for index, steps in enumerate(execution.template["steps"]):
        group_name = f"{node['name']}[{index}]"
        group = await _run_group(invocator, node, previous, group_name, _step_list(steps))
        if group["phase"] in FAILED:
            is_failing_fast = invocator.boundary.is_failing_fast
            node["outboundNodes"] = [] if is_failing_fast else _outbound(invocator, group)
            return run.nodes.set_phase(node, "Failed", group.get("message", ""))
        previous = group
    node["outboundNodes"] = _outbound(invocator, previous) if previous else []
    steps_outputs = outputs.resolve_outputs(execution.template, invocator.scope)
    if steps_outputs is not None:
        node["outputs"] = steps_outputs
        outputs.export_globals(run, steps_outputs)
    return run.nodes.set_phase(node, "Succeeded", "")


def _step_list(steps: Any) -> list[Step]:
    return list(steps["steps"] if isinstance(steps, dict) else steps)


def _outbound(invocator: Invocator, group: Node) -> list[str]:
    nodes = invocator.run.nodes
    return [last for child in group.get("children", ()) for last in node_tree.outbound(nodes, child)]


async def _run_group(
    invocator: Invocator, node: Node, previous: Node | None, name: str, steps: list[Step]
) -> Node:
    nodes = invocator.run.nodes
    group = nodes.by_name(name) or invocator.start_node(name, "StepGroup", "Running", None)
    if previous is None:
        nodes.connect(node, name)
    else:
        for last in _outbound(invocator, previous) or [previous["id"]]:
            nodes.connect(nodes.by_id[last], name)
    try:
        ended = await _run_all(invocator, group, steps)
    except (ArgoError, ManifestError) as error:
        return nodes.set_phase(group, "Error", str(error))
    except StepError as error:
        return nodes.set_phase(group, "Error", f"step group deemed errored due to child {error}")
    return group if is_fulfilled(group) else _end_group(invocator, group, ended)


async def _run_all(invocator: Invocator, group: Node, steps: list[Step]) -> list[tuple[Step, Node | None]]:
    calls: list[StepCall] = []
    item_names: dict[str, list[str]] = {}
    empty_loops: list[tuple[Step, Node]] = []
    for step in steps:
        await invocator.run.turns.take()
        filled, runs = invocator.fill(step)
        items = await invocator.expand_loop(filled, runs)
        if items is None:
            calls.append((step, step["name"], filled))
            continue
        item_names[step["name"]] = [name for name, _ in items]
        calls.extend((step, name, body) for name, body in items)
        if not items:
            empty_loops.append((step, _skip_empty_loop(invocator, group, step)))
    ended = await _run_together(invocator, group, calls)
    node_of = {name: node for (_, name, _), node in zip(calls, ended, strict=True)}
    for step in steps:
        _publish_outputs(invocator, group, step, node_of, item_names.get(step["name"]))
    return empty_loops + [(step, node_of[name]) for step, name, _ in calls]


async def _run_together(invocator: Invocator, group: Node, calls: list[StepCall]) -> list[Node | None]:
    """Run the calls of a group at the same time; once one could not be started, no further one is."""
    errors: list[Exception] = []

    async def run_one(call: StepCall) -> Node | None:
        await invocator.run.turns.take()
        try:
            return None if errors else await _run_once(invocator, group, *call)
        except (ArgoError, ManifestError, StepError) as error:
            errors.append(error)
            return None

    ended = await asyncio.gather(*(run_one(call) for call in calls), return_exceptions=True)
    for outcome in [*errors, *ended]:
        if isinstance(outcome, BaseException):
            raise outcome
    return [node for node in ended if not isinstance(node, BaseException)]


def _skip_empty_loop(invocator: Invocator, group: Node, step: Step) -> Node:
    name = f"{group['name']}.{step['name']}"
    node = invocator.run.nodes.by_name(name)
    if node is None:
        node = invocator.start_node(name, "Skipped", "Skipped", step, message=EMPTY_LOOP)
        invocator.run.nodes.connect(group, name)
    return node


def _publish_outputs(
    invocator: Invocator,
    group: Node,
    step: Step,
    node_of: dict[str, Node | None],
    item_names: list[str] | None,
) -> None:
    name = step["name"]
    if item_names is None:
        node = node_of[name]
    elif item_names:
        nodes = [node_of[item_name] for item_name in item_names]
        invocator.item_nodes[name] = [item for item in nodes if item and item["type"] != "Skipped"]
        node = group
    else:
        node = invocator.run.nodes.by_name(f"{group['name']}.{name}")
    if node is not None:
        invocator.publish_outputs(name, step, node)


async def _run_once(
    invocator: Invocator, group: Node, original: Step, own_name: str, step: Step
) -> Node | None:
    run, name = invocator.run, f"{group['name']}.{own_name}"
    run.nodes.connect(group, name)
    node = run.nodes.by_name(name)
    if node is None:
        skipped = invocator.skip_node(name, step)
        if skipped is not None and skipped["phase"] in FAILED:
            raise invalid_argument(skipped["message"])
        if skipped is not None:
            return skipped
    async with hooks.running_hooks(invocator, step, original["name"], name):
        try:
            node = await invocator.execute_template(run, invocator.call(name, step, original["name"]))
        except StepError as error:
            raise StepError(f"{name} error: {error}") from error
    if node is None:
        run.nodes.disconnect(name)
    else:
        outputs.export_globals(run, node.get("outputs") if node["type"] != "Pod" else None)
        await hooks.run_exit_hook(invocator, step, original["name"], node)
    return node


def _end_group(invocator: Invocator, group: Node, ended: list[tuple[Step, Node | None]]) -> Node:
    nodes = invocator.run.nodes
    if invocator.boundary.is_failing_fast:
        return nodes.set_phase(group, "Failed", FAIL_FAST_MESSAGE)
    for step, node in ended:
        if node is None:
            continue
        continues = (step.get("continueOn") or {}).get(CONTINUE_ON_FIELD.get(node["phase"], ""))
        if node["phase"] in FAILED and not continues:
            return nodes.set_phase(group, "Failed", f"child '{node['id']}' failed")
    return nodes.set_phase(group, "Succeeded", "")
