"""Retry of an ended workflow: what failed is removed from its nodes, so that it is run again in place."""

import re
from collections.abc import Callable

from periplus_local.argo.controller.nodes import FAILED, Node
from periplus_local.argo.controller.workflow_resubmit import with_parameters
from periplus_local.argo.controller.workflow_run import WorkflowRun
from periplus_local.argo.errors import invalid_argument
from periplus_local.argo.scalars import now, timestamp
from periplus_local.argo.selectors import node_field_selector

GROUP_TYPES = frozenset({"DAG", "Steps", "StepGroup", "TaskGroup", "Retry"})


def prepare(run: WorkflowRun, *, restart_successful: bool, selector: str, parameters: list[str]) -> None:
    """Prepare an ended workflow to go on: remove its failed nodes, and set the groups around them to Running.

    With `restart_successful` the nodes that the field selector selects are run again, too. `parameters`
    ("name=value") replace arguments. Raises ArgoError when the workflow has not failed and no node is selected.
    """
    phase = run.status.get("phase", "")
    if phase == "Succeeded" and not (restart_successful and selector):
        raise invalid_argument(
            "To retry a succeeded workflow, set the options restartSuccessful and nodeFieldSelector"
        )
    if phase not in {"Succeeded", "Failed", "Error"}:
        raise invalid_argument(f"Cannot retry a workflow in phase {phase}")
    is_selected = node_field_selector(selector) if restart_successful and selector else None
    removed = _nodes_to_remove(run, is_selected)
    if parameters:
        removed |= _siblings_of(run, removed)
    _remove(run, removed)
    run.spec.update(with_parameters(run.spec, parameters))
    run.spec.pop("shutdown", None)
    run.control["retried"] = run.control.get("retried", 0) + 1
    for key in ("finishedAt", "message", "progress"):
        run.status.pop(key, None)
    run.status["startedAt"] = timestamp(now())
    warnings = [item for item in run.status.get("conditions", ()) if item["type"] == "SpecWarning"]
    run.status["conditions"] = warnings
    run.set_phase("Running")


def _nodes_to_remove(run: WorkflowRun, is_selected: Callable[[Node], bool] | None) -> set[str]:
    starts = [
        node
        for node in run.nodes
        if (node["phase"] in FAILED and node["type"] not in GROUP_TYPES)
        or (is_selected is not None and is_selected(node))
    ]
    removed = _with_descendants(run, starts)
    exit_handler = f"{run.name}.onExit"
    removed |= {node["id"] for node in run.nodes if node["name"].startswith(exit_handler)}
    return removed - {run.name} if run.name not in {node["id"] for node in starts} else removed


def _with_descendants(run: WorkflowRun, nodes: list[Node]) -> set[str]:
    """The nodes and what is below or after them; of an attempt, all attempts of its Retry node."""
    found: set[str] = set()
    pending: list[str] = []
    for node in nodes:
        parent = None
        if (node.get("nodeFlag") or {}).get("retried"):
            parent = run.nodes.by_name(re.sub(r"\(\d+\)$", "", node["name"]))
        pending += [parent["id"], *parent.get("children", ())] if parent else [node["id"]]
    inside: tuple[
        str, ...
    ] = ()  # what the names of all nodes begin with that are within a group found before
    while pending:
        node_id = pending.pop()
        below = run.nodes.by_id.get(node_id)
        if below is None or node_id in found:
            continue
        found.add(node_id)
        pending.extend(below.get("children", ()))
        prefixes = (below["name"] + ".", below["name"] + "[", below["name"] + "(")
        if below["type"] in GROUP_TYPES and not below["name"].startswith(inside):
            inside += prefixes
            pending.extend(item["id"] for item in run.nodes if item["name"].startswith(prefixes))
    return found


def _siblings_of(run: WorkflowRun, removed: set[str]) -> set[str]:
    """The members of each group or loop of which a node is removed: other parameters may change them all."""
    found: set[str] = set()
    for node_id in _groups_around(run, removed) - removed:
        group = run.nodes.by_id[node_id]
        if group["type"] in {"StepGroup", "TaskGroup"}:
            children = [run.nodes.by_id[child] for child in group.get("children", ())]
            found |= _with_descendants(run, children)
    return found


def _remove(run: WorkflowRun, removed: set[str]) -> None:
    nodes = run.nodes
    around = _groups_around(run, removed)
    for node_id in removed:
        if node_id in nodes.by_id:
            nodes.remove(node_id)
    for node in list(nodes):
        changed = False
        for key in ("children", "outboundNodes"):
            if any(item in removed for item in node.get(key, ())):
                node[key] = [item for item in node[key] if item not in removed]
                changed = True
        if node["type"] in GROUP_TYPES and (node["phase"] in FAILED or changed or node["id"] in around):
            node.pop("finishedAt", None)
            node.pop("outputs", None)
            nodes.set_phase(node, "Running", "")
            changed = True
        if changed:
            nodes.children_changed(node)


def _groups_around(run: WorkflowRun, node_ids: set[str]) -> set[str]:
    """All boundaries and groups around the nodes, up to the root: they run again to reach the nodes."""
    found: set[str] = set()
    holders: dict[str, list[Node]] = {}
    for group in run.nodes:
        for child in group.get("children", ()) if group["type"] in GROUP_TYPES else ():
            holders.setdefault(child, []).append(group)
    pending = [run.nodes.by_id[node_id] for node_id in node_ids if node_id in run.nodes.by_id]
    while pending:
        node = pending.pop()
        holding = holders.get(node["id"], [])
        boundary = run.nodes.by_id.get(node.get("boundaryID") or "")
        for item in [*holding, *([boundary] if boundary else [])]:
            if item["id"] not in found:
                found.add(item["id"])
                pending.append(item)
    return found
