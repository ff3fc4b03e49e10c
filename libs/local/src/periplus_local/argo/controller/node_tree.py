"""What follows from the tree of nodes: outbound nodes, attempts, the phase of a DAG, progress."""

from collections import deque
from typing import Any

from periplus_local.argo.controller.nodes import COMPLETED, FAILED, PROGRESS_TYPES, Node, Nodes


def outbound(nodes: Nodes, node_id: str) -> list[str]:
    """The ids of the last nodes within a node, of which the next steps become children."""
    node = nodes.by_id.get(node_id)
    if node is None:
        return []
    kind = node["type"]
    children = node.get("children", [])
    if kind in {"Skipped", "Suspend", "Pod"}:
        return [node_id]
    if kind == "TaskGroup":
        if not children:
            return [node_id]
        return [last for child in children for last in outbound(nodes, child)]
    if kind == "Retry":
        return list(children[-1:])
    return [last for after in node.get("outboundNodes", []) for last in outbound(nodes, after)]


def attempts(nodes: Nodes, node: Node) -> list[Node]:
    """The attempts of a Retry node, in order, without its hooks."""
    children = (nodes.by_id.get(child) for child in node.get("children", ()))
    return [child for child in children if child and child.get("nodeFlag", {}).get("retried")]


def last_attempt(nodes: Nodes, node: Node) -> Node:
    """The last attempt of a Retry node, whose outputs other steps refer to; any other node is its own."""
    if node["type"] != "Retry":
        return node
    tries = attempts(nodes, node)
    return tries[-1] if tries else node


def dag_phase(nodes: Nodes, boundary: Node, targets: dict[str, dict[str, Any]], fail_fast: bool) -> str:
    """The phase of a DAG whose tasks have all ended.

    `targets` are the target tasks by node id. A target that has not completed has the phase of the branch that leads
    to it; Failed and Error win over Succeeded.
    """
    phases = _target_phases(nodes, boundary, set(targets))
    result = "Succeeded"
    for target, task in targets.items():
        phase = phases.get(target, "")
        if phase in FAILED:
            continue_on = task.get("continueOn") or {}
            if continue_on.get("failed" if phase == "Failed" else "error"):
                continue
            result = phase
            if fail_fast:
                break
    return result


def _target_phases(nodes: Nodes, boundary: Node, targets: set[str]) -> dict[str, str]:
    phases: dict[str, str] = {}
    queue = deque((child, "Succeeded") for child in boundary.get("children", ()))
    visited = set(queue)
    while queue:
        node_id, phase = queue.popleft()
        node = nodes.by_id.get(node_id)
        if node is None:
            continue
        if node["phase"] in COMPLETED:
            phase = node["phase"]
        if node_id in targets and phases.get(node_id) not in FAILED:
            phases[node_id] = phase
        followed = node.get("children", [])[-1:] if node["type"] == "Retry" else node.get("children", ())
        for visit in ((child, phase) for child in followed):
            if visit not in visited:
                visited.add(visit)
                queue.append(visit)
    return phases


def set_progress(nodes: Nodes) -> None:
    """Set the progress of every node that is no Pod or Suspend to the sum of those below it.

    A node may be below another by many paths and counts once: sets of nodes are kept as bits of integers, so that
    the time grows with the number of nodes and not with its square.
    """
    bits = {node["id"]: 1 << index for index, node in enumerate(nodes)}
    counted = sum(bits[node["id"]] for node in nodes if _is_counted(node))
    done = sum(bits[node["id"]] for node in nodes if node.get("progress") == "1/1" and _is_counted(node))
    below: dict[str, int] = {}
    for node_id in _children_first(nodes):
        mask = 0
        for child in nodes.by_id[node_id].get("children", ()):
            mask |= bits.get(child, 0) | below.get(child, 0)
        below[node_id] = mask
    for node in nodes:
        total = (below[node["id"]] & counted).bit_count()
        if not _is_counted(node) and total:
            progress = f"{(below[node['id']] & done).bit_count()}/{total}"
            if node.get("progress") != progress:
                node["progress"] = progress
                nodes.mark_dirty(node)


def _is_counted(node: Node) -> bool:
    return node["type"] in PROGRESS_TYPES


def _children_first(nodes: Nodes) -> list[str]:
    order: list[str] = []
    state: dict[str, int] = {}
    for start in nodes.by_id:
        stack = [start]
        while stack:
            node_id = stack[-1]
            if state.get(node_id) or node_id not in nodes.by_id:
                stack.pop()
                if state.get(node_id) == 1:
                    state[node_id] = 2
                    order.append(node_id)
                continue
            state[node_id] = 1
            stack.extend(child for child in nodes.by_id[node_id].get("children", ()) if not state.get(child))
    return order
