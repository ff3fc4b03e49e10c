"""What a workflow that is submitted once more takes over from the one that failed: its finished steps."""

from typing import Any

from periplus_local.argo import names
from periplus_local.argo.faults import invalid
from periplus_local.argo.nodes import FAILED, Node

ORIGINAL = "original pod: "
ONLY_FAILED = "workflow must be Failed/Error to resubmit in memoized mode"


def named_anew(workflow: dict[str, Any], phase: str) -> dict[str, Any]:
    """The workflow with a name, which the ids of its nodes are made of; Fault when it has not failed."""
    if phase not in FAILED:
        raise invalid(ONLY_FAILED)
    metadata = workflow["metadata"]
    return {**workflow, "metadata": {**metadata, "name": names.generated(metadata["generateName"])}}


def taken_over(old: str, nodes: list[Node], new: str) -> list[Node]:
    """The nodes of the workflow `old` as those of `new`: pods that succeeded are skipped, others are to run.

    What was skipped or omitted is decided once more, and so is the exit handler. A step that `old` had taken
    over itself is taken over from there.
    """
    kept = [node for node in nodes if _is_taken(node, f"{old}.onExit")]
    ids = {node["id"]: names.node_id(new, _name(node["name"], old, new)) for node in kept}
    return [_taken(node, ids, old, new) for node in kept]


def _is_taken(node: Node, handler: str) -> bool:
    return (node["type"] != "Skipped" or _was_taken(node)) and not node["name"].startswith(handler)


def _was_taken(node: Node) -> bool:
    return node["type"] == "Skipped" and str(node.get("message", "")).startswith(ORIGINAL)


def _name(name: str, old: str, new: str) -> str:
    return new + name.removeprefix(old)


def _taken(node: Node, ids: dict[str, str], old: str, new: str) -> Node:
    taken = _was_taken(node)
    done = taken or (node["type"] == "Pod" and node["phase"] not in FAILED)
    now = names.stamp(names.now())
    made = {key: value for key, value in node.items() if key not in {"message", "finishedAt"}}
    made |= {"id": ids[node["id"]], "name": _name(node["name"], old, new), "startedAt": now}
    if "boundaryID" in node:
        made["boundaryID"] = ids[node["boundaryID"]]
    for key in ("children", "outboundNodes"):
        if key in node:
            made[key] = [ids[item] for item in node[key] if item in ids]
    if not done:
        return made | {"phase": "Pending"}
    said = node["message"] if taken else ORIGINAL + node["id"]
    return made | {"type": "Skipped", "phase": "Skipped", "message": said, "finishedAt": now}
