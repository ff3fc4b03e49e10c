"""A template that is a list of groups of steps: the groups one after another, their steps together."""

import asyncio
from typing import Any

from periplus_local.argo import hooks, outputs, tree
from periplus_local.argo.call import HELD_BACK, Frame, StepError
from periplus_local.argo.faults import Fault, invalid
from periplus_local.argo.nodes import FAILED, Node, fulfilled
from periplus_local.argo.place import EMPTY, Place, place_of
from periplus_manifest.errors import ManifestError

Step = dict[str, Any]
EXCUSES = {"Failed": "failed", "Error": "error"}


async def run(frame: Frame) -> Node:
    """Run a steps template to its end; raises Fault when its outputs cannot be had."""
    run = frame.run
    node = frame.node() or frame.start("Steps", "Running")
    if node["phase"] != "Running":
        run.nodes.mark(node, "Running", "")
    place = place_of(frame, node, "steps")
    above: Node | None = None
    for index, steps in enumerate(frame.template["steps"]):
        group = await _group(place, node, above, f"{node['name']}[{index}]", _listed(steps))
        if group["phase"] in FAILED:
            node["outboundNodes"] = [] if place.boundary.closed else _outbound(place, group)
            return run.nodes.mark(node, "Failed", group.get("message", ""))
        above = group
    node["outboundNodes"] = _outbound(place, above) if above else []
    made = outputs.gathered(frame.template, place.scope)
    if made is not None:
        node["outputs"] = made
        outputs.export(run, made)
    return run.nodes.mark(node, "Succeeded", "")


def _listed(steps: Any) -> list[Step]:
    return list(steps["steps"] if isinstance(steps, dict) else steps)


def _outbound(place: Place, group: Node) -> list[str]:
    nodes = place.run.nodes
    return [leaf for child in group.get("children", ()) for leaf in tree.outbound(nodes, child)]


async def _group(place: Place, node: Node, above: Node | None, name: str, steps: list[Step]) -> Node:
    nodes = place.run.nodes
    group = nodes.named(name) or place.start(name, "StepGroup", "Running", None)
    if above is None:
        nodes.connect(node, name)
    else:
        for leaf in _outbound(place, above) or [above["id"]]:
            nodes.connect(nodes.by_id[leaf], name)
    try:
        ran = await _all(place, group, steps)
    except (Fault, ManifestError) as error:
        return nodes.mark(group, "Error", str(error))
    except StepError as error:
        return nodes.mark(group, "Error", f"step group deemed errored due to child {error}")
    return group if fulfilled(group) else _assessed(place, group, ran)


async def _all(place: Place, group: Node, steps: list[Step]) -> list[tuple[Step, Node | None]]:
    calls: list[tuple[Step, str, Step]] = []
    looped: dict[str, list[str]] = {}
    alone: list[tuple[Step, Node]] = []
    for step in steps:
        made, runs = place.filled(step)
        iterations = place.expanded(made, runs)
        if iterations is None:
            calls.append((step, step["name"], made))
            continue
        looped[step["name"]] = [own for own, _ in iterations]
        calls.extend((step, own, body) for own, body in iterations)
        if not iterations:
            alone.append((step, _empty(place, group, step)))
    ran = await _together(place, group, calls)
    found = {own: node for (_, own, _), node in zip(calls, ran, strict=True)}
    for step in steps:
        _settle(place, group, step, found, looped.get(step["name"]))
    return alone + [(step, found[own]) for step, own, _ in calls]


async def _together(place: Place, group: Node, calls: list[tuple[Step, str, Step]]) -> list[Node | None]:
    """Run the calls of a group at once; those that come after one that cannot start are not begun."""
    wrong: list[Exception] = []

    async def one(call: tuple[Step, str, Step]) -> Node | None:
        try:
            return None if wrong else await _once(place, group, *call)
        except (Fault, ManifestError, StepError) as error:
            wrong.append(error)
            return None

    ran = await asyncio.gather(*(one(call) for call in calls), return_exceptions=True)
    for outcome in [*wrong, *ran]:
        if isinstance(outcome, BaseException):
            raise outcome
    return [node for node in ran if not isinstance(node, BaseException)]


def _empty(place: Place, group: Node, step: Step) -> Node:
    name = f"{group['name']}.{step['name']}"
    node = place.run.nodes.named(name)
    if node is None:
        node = place.start(name, "Skipped", "Skipped", step, message=EMPTY)
        place.run.nodes.connect(group, name)
    return node


def _settle(
    place: Place, group: Node, step: Step, found: dict[str, Node | None], iterations: list[str] | None
) -> None:
    name = step["name"]
    if iterations is None:
        node = found[name]
    elif iterations:
        nodes = [found[own] for own in iterations]
        place.items[name] = [item for item in nodes if item and item["type"] != "Skipped"]
        node = group
    else:
        node = place.run.nodes.named(f"{group['name']}.{name}")
    if node is not None:
        place.settle(name, step, node)


async def _once(place: Place, group: Node, original: Step, own: str, step: Step) -> Node | None:
    run, name = place.run, f"{group['name']}.{own}"
    run.nodes.connect(group, name)
    node = run.nodes.named(name)
    if node is None:
        skipped = place.skipped(name, step)
        if skipped is not None and skipped["phase"] in FAILED:
            raise invalid(skipped["message"])
        if skipped is not None:
            return skipped
    async with hooks.watching(place, step, original["name"], name):
        try:
            node = await place.execute(run, place.call(name, step, original["name"]))
        except StepError as error:
            raise StepError(f"{name} error: {error}") from error
    if node is None:
        run.nodes.disconnect(name)
    else:
        outputs.export(run, node.get("outputs") if node["type"] != "Pod" else None)
        await hooks.run_exit(place, step, original["name"], node)
    return node


def _assessed(place: Place, group: Node, ran: list[tuple[Step, Node | None]]) -> Node:
    nodes = place.run.nodes
    if place.boundary.closed:
        return nodes.mark(group, "Failed", HELD_BACK)
    for step, node in ran:
        if node is None:
            continue
        excused = (step.get("continueOn") or {}).get(EXCUSES.get(node["phase"], ""))
        if node["phase"] in FAILED and not excused:
            return nodes.mark(group, "Failed", f"child '{node['id']}' failed")
    return nodes.mark(group, "Succeeded", "")
