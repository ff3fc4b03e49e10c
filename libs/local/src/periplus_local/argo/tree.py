"""What can be read off the tree of nodes: where a node leads, how far it is, how a DAG ended."""

from collections import deque
from typing import Any

from periplus_local.argo.nodes import COMPLETED, FAILED, FULFILLED, PROGRESSING, Node, Nodes


def outbound(nodes: Nodes, node_id: str) -> list[str]:
    """The ids of the last nodes within a node: those to which what comes after is attached."""
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
        return [leaf for child in children for leaf in outbound(nodes, child)]
    if kind == "Retry":
        return list(children[-1:])
    return [leaf for after in node.get("outboundNodes", []) for leaf in outbound(nodes, after)]


def attempts(nodes: Nodes, node: Node) -> list[Node]:
    """The attempts of a Retry node, in order; hooks are not among them."""
    children = (nodes.by_id.get(child) for child in node.get("children", ()))
    return [child for child in children if child and child.get("nodeFlag", {}).get("retried")]


def dag_phase(nodes: Nodes, boundary: Node, targets: dict[str, dict[str, Any]], fast: bool) -> str:
    """The phase of a DAG whose tasks have all come to rest.

    `targets` are the target tasks by node id. A target without a verdict of its own inherits that of
    the branch which leads to it; Failed and Error win over Succeeded.
    """
    verdicts = _verdicts(nodes, boundary, set(targets))
    result = "Succeeded"
    for target, task in targets.items():
        phase = verdicts.get(target, "")
        if phase in FAILED:
            excused = task.get("continueOn") or {}
            if excused.get("failed" if phase == "Failed" else "error"):
                continue
            result = phase
            if fast:
                break
    return result


def _verdicts(nodes: Nodes, boundary: Node, targets: set[str]) -> dict[str, str]:
    verdicts: dict[str, str] = {}
    queue = deque((child, "Succeeded") for child in boundary.get("children", ()))
    seen = set(queue)
    while queue:
        node_id, phase = queue.popleft()
        node = nodes.by_id.get(node_id)
        if node is None:
            continue
        if node["phase"] in COMPLETED:
            phase = node["phase"]
        if node_id in targets and verdicts.get(node_id) not in FAILED:
            verdicts[node_id] = phase
        last = node.get("children", [])[-1:] if node["type"] == "Retry" else node.get("children", ())
        for step in ((child, phase) for child in last):
            if step not in seen:
                seen.add(step)
                queue.append(step)
    return verdicts


def set_progress(nodes: Nodes) -> None:
    """Give every node that is not itself a piece of work the sum of the work below it.

    A node may be below another by many paths and counts once: the sets of what is below are kept as
    the bits of integers, so that the time grows with the number of nodes and not with its square.
    """
    bits = {node["id"]: 1 << place for place, node in enumerate(nodes)}
    work = sum(bits[node["id"]] for node in nodes if node["type"] in PROGRESSING)
    ready = sum(bits[node["id"]] for node in nodes if node.get("progress") == "1/1" and _is_work(node))
    below: dict[str, int] = {}
    for node_id in _children_first(nodes):
        mask = 0
        for child in nodes.by_id[node_id].get("children", ()):
            mask |= bits.get(child, 0) | below.get(child, 0)
        below[node_id] = mask
    for node in nodes:
        total = (below[node["id"]] & work).bit_count()
        if not _is_work(node) and total:
            said = f"{(below[node['id']] & ready).bit_count()}/{total}"
            if node.get("progress") != said:
                node["progress"] = said
                nodes.touch(node)


def _is_work(node: Node) -> bool:
    return node["type"] in PROGRESSING


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


def all_fulfilled(nodes: Nodes, node: Node) -> bool:
    """Whether the node and the hooks attached to it have come to rest."""
    if node["phase"] not in FULFILLED:
        return False
    hooked = (nodes.by_id.get(child) for child in node.get("children", ()))
    return all(
        child["phase"] in FULFILLED for child in hooked if child and child.get("nodeFlag", {}).get("hooked")
    )
