"""A workflow once more: retried in place where it failed, or submitted anew."""

import re
from typing import Any

from periplus_local.argo import names, selector
from periplus_local.argo.faults import internal, invalid
from periplus_local.argo.nodes import FAILED, Node
from periplus_local.argo.run import LABEL, Run

GROUPS = frozenset({"DAG", "Steps", "StepGroup", "TaskGroup", "Retry"})
NOT_CARRIED = {LABEL + key for key in ("phase", "completed", "workflow-archiving-status")}


def resubmitted(row: Any, parameters: list[str]) -> dict[str, Any]:
    """A new workflow with the spec of one that there is; Fault for a parameter that is no pair."""
    metadata = row.metadata
    spec = {key: value for key, value in row.spec.items() if key not in {"shutdown", "suspend"}}
    labels = {k: v for k, v in (metadata.get("labels") or {}).items() if k not in NOT_CARRIED}
    labels[LABEL + "resubmitted-from-workflow"] = row.name
    return {
        "metadata": {
            "generateName": metadata.get("generateName") or f"{row.name}-",
            "namespace": row.namespace,
            "labels": labels,
            "annotations": dict(metadata.get("annotations") or {}),
        },
        "spec": with_parameters(spec, parameters),
    }


def with_parameters(spec: dict[str, Any], pairs: list[str]) -> dict[str, Any]:
    """The spec with some arguments replaced ("name=value" each)."""
    if not pairs:
        return spec
    arguments = dict(spec.get("arguments") or {})
    given = {item["name"]: item for item in arguments.get("parameters") or ()}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise internal(f"expected parameter of the form: NAME=VALUE. Received: {pair}")
        given[name] = {"name": name, "value": value}
    arguments["parameters"] = list(given.values())
    return {**spec, "arguments": arguments}


def prepare(run: Run, *, successful: bool, chosen: str, parameters: list[str]) -> None:
    """Make an ended workflow ready to go on: what failed is forgotten, what is above it runs again.

    With `successful` and a node field selector, the nodes that it picks are run again, too. Raises Fault
    when the workflow has not failed and nothing is picked.
    """
    phase = run.status.get("phase", "")
    if phase == "Succeeded" and not (successful and chosen):
        raise invalid(
            "To retry a succeeded workflow, set the options restartSuccessful and nodeFieldSelector"
        )
    if phase not in {"Succeeded", "Failed", "Error"}:
        raise invalid(f"Cannot retry a workflow in phase {phase}")
    dropped = _dropped(run, selector.nodes(chosen) if successful and chosen else None)
    if parameters:
        dropped |= _beside(run, dropped)
    _forget(run, dropped)
    run.spec.update(with_parameters(run.spec, parameters))
    run.spec.pop("shutdown", None)
    run.control["retried"] = run.control.get("retried", 0) + 1
    for key in ("finishedAt", "message", "progress"):
        run.status.pop(key, None)
    run.status["startedAt"] = names.stamp(names.now())
    kept = [item for item in run.status.get("conditions", ()) if item["type"] == "SpecWarning"]
    run.status["conditions"] = kept
    run.set_phase("Running")


def _dropped(run: Run, picked: Any) -> set[str]:
    roots = [node for node in run.nodes if _is_failed_work(node) or (picked is not None and picked(node))]
    dropped: set[str] = set()
    for node in roots:
        dropped |= _with_after(run, node)
    prefix = f"{run.name}.onExit"
    dropped |= {node["id"] for node in run.nodes if node["name"].startswith(prefix)}
    return dropped - {run.name} if run.name not in {node["id"] for node in roots} else dropped


def _is_failed_work(node: Node) -> bool:
    return node["phase"] in FAILED and node["type"] not in GROUPS


def _with_after(run: Run, node: Node) -> set[str]:
    """The node, what is below or after it, and of a Retry node all attempts."""
    found: set[str] = set()
    flag = node.get("nodeFlag") or {}
    start = [node["id"]]
    if flag.get("retried"):
        parent = run.nodes.named(re.sub(r"\(\d+\)$", "", node["name"]))
        start = [parent["id"], *parent.get("children", ())] if parent else start
    while start:
        node_id = start.pop()
        below = run.nodes.by_id.get(node_id)
        if below is None or node_id in found:
            continue
        found.add(node_id)
        start.extend(below.get("children", ()))
        prefixes = (below["name"] + ".", below["name"] + "[", below["name"] + "(")
        if below["type"] in GROUPS:
            start.extend(item["id"] for item in run.nodes if item["name"].startswith(prefixes))
    return found


def _beside(run: Run, dropped: set[str]) -> set[str]:
    """What other parameters may change: all that is in a group or a loop of which something runs again."""
    found: set[str] = set()
    for node_id in _around(run, dropped) - dropped:
        group = run.nodes.by_id[node_id]
        if group["type"] in {"StepGroup", "TaskGroup"}:
            for child in group.get("children", ()):
                found |= _with_after(run, run.nodes.by_id[child])
    return found


def _forget(run: Run, dropped: set[str]) -> None:
    nodes = run.nodes
    around = _around(run, dropped)
    for node_id in dropped:
        if node_id in nodes.by_id:
            nodes.forget(node_id)
    for node in list(nodes):
        changed = False
        for key in ("children", "outboundNodes"):
            if any(item in dropped for item in node.get(key, ())):
                node[key] = [item for item in node[key] if item not in dropped]
                changed = True
        if node["type"] in GROUPS and (node["phase"] in FAILED or changed or node["id"] in around):
            node.pop("finishedAt", None)
            node.pop("outputs", None)
            nodes.mark(node, "Running", "")
            changed = True
        if changed:
            nodes.restate(node)


def _around(run: Run, dropped: set[str]) -> set[str]:
    """All boundaries and groups around the nodes, out to the root; they run again to reach the nodes."""
    found: set[str] = set()
    groups = [node for node in run.nodes if node["type"] in GROUPS]
    inner = [run.nodes.by_id[node_id] for node_id in dropped if node_id in run.nodes.by_id]
    while inner:
        node = inner.pop()
        holding = [item for item in groups if node["id"] in item.get("children", ())]
        boundary = run.nodes.by_id.get(node.get("boundaryID") or "")
        for item in [*holding, *([boundary] if boundary else [])]:
            if item["id"] not in found:
                found.add(item["id"])
                inner.append(item)
    return found
