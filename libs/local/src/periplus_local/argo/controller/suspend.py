"""Suspend templates: a node that waits for its duration, or until a client sets or resumes it."""

import asyncio
from typing import Any

from periplus_local.argo.controller.nodes import Node, is_fulfilled
from periplus_local.argo.controller.template_call import FAIL_FAST_MESSAGE, TemplateExecution
from periplus_local.argo.errors import internal
from periplus_local.argo.scalars import duration_seconds, now, parse_timestamp


async def run_suspend(execution: TemplateExecution) -> Node:
    """Wait until the node is set or its duration has passed; then its outputs have their defaults."""
    run = execution.run
    node = execution.node()
    seconds_left = _seconds_left(execution, node)
    if node is None:
        supplied = _supplied_outputs(execution.template)
        node = execution.start_node(
            "Suspend", "Running", outputs={"parameters": supplied} if supplied else None
        )
    elif not is_fulfilled(node) and node["phase"] != "Running":
        run.nodes.set_phase(node, "Running")
    wakeup = asyncio.Event()
    with run.nodes.listening(node["id"], lambda _: wakeup.set()):
        ended = await run.wait_until(lambda: is_fulfilled(node) or _must_end(execution), seconds_left, wakeup)
    if is_fulfilled(node):
        return node
    if ended:
        is_shut_down = run.is_shut_down(in_exit_handler=execution.call.in_exit_handler)
        message = f"Stopped with strategy '{run.shutdown}'" if is_shut_down else "Step exceeded its deadline"
        message = FAIL_FAST_MESSAGE if _is_failing_fast(execution) else message
        return run.nodes.set_phase(node, "Failed", message)
    use_defaults(node)
    return run.nodes.set_phase(node, "Succeeded")


def _must_end(execution: TemplateExecution) -> bool:
    run, in_exit_handler = execution.run, execution.call.in_exit_handler
    return (
        run.is_shut_down(in_exit_handler=in_exit_handler)
        or (run.is_deadline_passed() and not in_exit_handler)
        or _is_failing_fast(execution)
    )


def _is_failing_fast(execution: TemplateExecution) -> bool:
    return execution.call.boundary is not None and execution.call.boundary.is_failing_fast


def _seconds_left(execution: TemplateExecution, node: Node | None) -> float | None:
    duration = (execution.template.get("suspend") or {}).get("duration")
    if not duration:
        return None
    elapsed = 0.0
    if node is not None:
        elapsed = max((now() - parse_timestamp(node["startedAt"])).total_seconds(), 0.0)
    return max(duration_seconds(duration) - elapsed, 0.0)


def _supplied_outputs(template: dict[str, Any]) -> list[dict[str, Any]]:
    """The output parameters that a client is to set (`valueFrom.supplied`), each with its default."""
    defaults = {
        item["name"]: item["default"]
        for item in (template.get("inputs") or {}).get("parameters") or ()
        if "default" in item
    }
    supplied = []
    for item in (template.get("outputs") or {}).get("parameters") or ():
        source = item.get("valueFrom") or {}
        if "supplied" not in source:
            continue
        if "default" not in source and item["name"] in defaults:
            supplied.append({**item, "valueFrom": {**source, "default": defaults[item["name"]]}})
        else:
            supplied.append(item)
    return supplied


def use_defaults(node: Node) -> None:
    """Give every output that was not set its default; raises ArgoError when it has none."""
    try:
        node["outputs"]["parameters"] = [_with_default(item) for item in node["outputs"]["parameters"]]
    except KeyError:
        return


def _with_default(item: dict[str, Any]) -> dict[str, Any]:
    source = item.get("valueFrom") or {}
    if "supplied" not in source:
        return item
    if "default" not in source:
        raise internal(
            f"raw output parameter '{item['name']}' has not been set and does not have a default value"
        )
    return {**{k: v for k, v in item.items() if k != "valueFrom"}, "value": source["default"]}
