"""Resubmission of a workflow: a new one with its spec, if memoized with its successful steps as they are."""

from typing import Any

from periplus_local.argo import names
from periplus_local.argo.controller.nodes import FAILED, Node
from periplus_local.argo.errors import internal, invalid_argument
from periplus_local.argo.names import LABEL_PREFIX
from periplus_local.argo.scalars import now, timestamp
from periplus_local.argo.storage.state_store import WorkflowRow

LABELS_NOT_COPIED = {LABEL_PREFIX + key for key in ("phase", "completed", "workflow-archiving-status")}
ORIGINAL_POD = "original pod: "
ONLY_FAILED = "workflow must be Failed/Error to resubmit in memoized mode"


def resubmitted(row: WorkflowRow, parameters: list[str]) -> dict[str, Any]:
    """A new workflow with the spec of a stored one; `parameters` ("name=value") replace arguments."""
    metadata = row.metadata
    spec = {key: value for key, value in row.spec.items() if key not in {"shutdown", "suspend"}}
    labels = {k: v for k, v in (metadata.get("labels") or {}).items() if k not in LABELS_NOT_COPIED}
    labels[LABEL_PREFIX + "resubmitted-from-workflow"] = row.name
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
    """The spec with some arguments replaced; raises ArgoError for a pair that is not "name=value"."""
    if not pairs:
        return spec
    arguments = dict(spec.get("arguments") or {})
    parameters = {item["name"]: item for item in arguments.get("parameters") or ()}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise internal(f"expected parameter of the form: NAME=VALUE. Received: {pair}")
        parameters[name] = {"name": name, "value": value}
    arguments["parameters"] = list(parameters.values())
    return {**spec, "arguments": arguments}


def with_generated_name(workflow: dict[str, Any], phase: str) -> dict[str, Any]:
    """The workflow with a name, which the ids of its nodes depend on; ArgoError when `phase` is no failure."""
    if phase not in FAILED:
        raise invalid_argument(ONLY_FAILED)
    metadata = workflow["metadata"]
    return {**workflow, "metadata": {**metadata, "name": names.generated(metadata["generateName"])}}


def memoized_nodes(old: str, nodes: list[Node], new: str) -> list[Node]:
    """The nodes of the workflow `old` as those of `new`: successful pods become Skipped, the others Pending.

    Nodes that were skipped or omitted are left out, since their conditions are evaluated again, and so is the exit
    handler. A pod that `old` itself had memoized stays memoized.
    """
    copied = [node for node in nodes if _is_copied(node, f"{old}.onExit")]
    ids = {node["id"]: names.node_id(new, _renamed(node["name"], old, new)) for node in copied}
    return [_copy(node, ids, old, new) for node in copied]


def _is_copied(node: Node, exit_handler: str) -> bool:
    return (node["type"] != "Skipped" or _is_memoized(node)) and not node["name"].startswith(exit_handler)


def _is_memoized(node: Node) -> bool:
    return node["type"] == "Skipped" and str(node.get("message", "")).startswith(ORIGINAL_POD)


def _renamed(name: str, old: str, new: str) -> str:
    return new + name.removeprefix(old)


def _copy(node: Node, ids: dict[str, str], old: str, new: str) -> Node:
    was_memoized = _is_memoized(node)
    is_successful_pod = node["type"] == "Pod" and node["phase"] not in FAILED
    started = timestamp(now())
    copy = {key: value for key, value in node.items() if key not in {"message", "finishedAt"}}
    copy |= {"id": ids[node["id"]], "name": _renamed(node["name"], old, new), "startedAt": started}
    if "boundaryID" in node:
        copy["boundaryID"] = ids[node["boundaryID"]]
    for key in ("children", "outboundNodes"):
        if key in node:
            copy[key] = [ids[item] for item in node[key] if item in ids]
    if not (was_memoized or is_successful_pod):
        return copy | {"phase": "Pending"}
    message = node["message"] if was_memoized else ORIGINAL_POD + node["id"]
    return copy | {"type": "Skipped", "phase": "Skipped", "message": message, "finishedAt": started}
