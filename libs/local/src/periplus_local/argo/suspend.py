"""A template that waits: for its duration, or for somebody to answer or resume it."""

import asyncio
from typing import Any

from periplus_local.argo import names
from periplus_local.argo.call import HELD_BACK, Frame
from periplus_local.argo.duration import seconds_of
from periplus_local.argo.faults import internal
from periplus_local.argo.nodes import Node, fulfilled


async def run(frame: Frame) -> Node:
    """Wait until the node is answered or its time is over; then its outputs have their defaults."""
    run = frame.run
    node = frame.node()
    left = _left(frame, node)
    if node is None:
        asked = _asked(frame.template)
        node = frame.start("Suspend", "Running", outputs={"parameters": asked} if asked else None)
    elif not fulfilled(node) and node["phase"] != "Running":
        run.nodes.mark(node, "Running")
    stirred = asyncio.Event()
    with run.nodes.watching(node["id"], lambda _: stirred.set()):
        answered = await run.until(lambda: fulfilled(node) or _ends(frame), left, stirred)
    if fulfilled(node):
        return node
    if answered:
        shut = run.shuts(frame.call.exit_part)
        message = f"Stopped with strategy '{run.shutdown}'" if shut else "Step exceeded its deadline"
        message = HELD_BACK if _held_back(frame) else message
        return run.nodes.mark(node, "Failed", message)
    use_defaults(node)
    return run.nodes.mark(node, "Succeeded")


def _ends(frame: Frame) -> bool:
    over = frame.run.shuts(frame.call.exit_part) or (frame.run.expired() and not frame.call.exit_part)
    return over or _held_back(frame)


def _held_back(frame: Frame) -> bool:
    return frame.call.boundary is not None and frame.call.boundary.closed


def _left(frame: Frame, node: Node | None) -> float | None:
    duration = (frame.template.get("suspend") or {}).get("duration")
    if not duration:
        return None
    past = 0.0
    if node is not None:
        past = max((names.now() - names.parse(node["startedAt"])).total_seconds(), 0.0)
    return max(seconds_of(duration) - past, 0.0)


def _asked(template: dict[str, Any]) -> list[dict[str, Any]]:
    defaults = {
        item["name"]: item["default"]
        for item in (template.get("inputs") or {}).get("parameters") or ()
        if "default" in item
    }
    asked = []
    for item in (template.get("outputs") or {}).get("parameters") or ():
        origin = item.get("valueFrom") or {}
        if "supplied" not in origin:
            continue
        if "default" not in origin and item["name"] in defaults:
            asked.append({**item, "valueFrom": {**origin, "default": defaults[item["name"]]}})
        else:
            asked.append(item)
    return asked


def use_defaults(node: Node) -> None:
    """Give every output that nobody supplied its default; raises Fault when it has none."""
    try:
        node["outputs"]["parameters"] = [_default(item) for item in node["outputs"]["parameters"]]
    except KeyError:
        return


def _default(item: dict[str, Any]) -> dict[str, Any]:
    origin = item.get("valueFrom") or {}
    if "supplied" not in origin:
        return item
    if "default" not in origin:
        raise internal(
            f"raw output parameter '{item['name']}' has not been set and does not have a default value"
        )
    return {**{k: v for k, v in item.items() if k != "valueFrom"}, "value": origin["default"]}
