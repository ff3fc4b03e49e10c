"""The variables `workflow.*`, which every template of a workflow can refer to."""

import datetime as dt
import json
from typing import Any

from periplus_local.argo import names
from periplus_local.argo.controller.nodes import FAILED, Nodes
from periplus_local.argo.controller.scope import Scope, parameters_json
from periplus_local.argo.scalars import now, parse_timestamp, timestamp
from periplus_manifest import gotext

# The formats of strftime that Argo gives for `workflow.creationTimestamp`.
CREATION_FORMATS = "aAbBdHImMpSyYzZ"


def workflow_scope(metadata: dict[str, Any], spec: dict[str, Any], status: dict[str, Any]) -> Scope:
    """The variables of a workflow that starts or goes on after a restart."""
    scope = Scope()
    for key in ("name", "namespace", "uid"):
        scope.put(metadata[key], "workflow", key)
    scope.put(spec.get("entrypoint", ""), "workflow", "mainEntrypoint")
    scope.put(spec.get("serviceAccountName", ""), "workflow", "serviceAccountName")
    if "priority" in spec:
        scope.put(str(spec["priority"]), "workflow", "priority")
    _put_creation(scope, parse_timestamp(metadata["creationTimestamp"]))
    _put_parameters(scope, (spec.get("arguments") or {}).get("parameters") or [])
    added = spec.get("workflowMetadata") or {}
    for kind in ("annotations", "labels"):
        own = {
            key: value for key, value in (metadata.get(kind) or {}).items() if key != names.POD_NAME_FORMAT
        }
        both = {**own, **(added.get(kind) or {})}
        scope.nested["workflow"][kind] = {"json": gotext.json_text(own), **both}
        for key, value in both.items():
            scope.flat[f"workflow.{kind}.{key}"] = value
        for key in (f"workflow.{kind}", f"workflow.{kind}.json"):
            scope.flat[key] = gotext.json_text(own)
    put_outputs(scope, status.get("outputs") or {})
    put_state(scope, status.get("phase", ""), metadata)
    return scope


def _put_creation(scope: Scope, created: dt.datetime) -> None:
    for letter in CREATION_FORMATS:
        scope.flat[f"workflow.creationTimestamp.{letter}"] = created.strftime(f"%{letter}")
    scope.flat["workflow.creationTimestamp.L"] = ".000"
    scope.flat["workflow.creationTimestamp"] = timestamp(created)
    scope.flat["workflow.creationTimestamp.RFC3339"] = timestamp(created)
    scope.flat["workflow.creationTimestamp.s"] = str(int(created.timestamp()))
    prefix = "workflow.creationTimestamp."
    scope.nested["workflow"]["creationTimestamp"] = {
        key.removeprefix(prefix): value for key, value in scope.flat.items() if key.startswith(prefix)
    }


def _put_parameters(scope: Scope, parameters: list[dict[str, Any]]) -> None:
    for parameter in parameters:
        if "value" in parameter:
            scope.put(parameter["value"], "workflow", "parameters", parameter["name"])
    for parameter in parameters:
        if "{{" in parameter.get("value", ""):  # it refers to others, whose own tags are not filled in
            value = scope.fill(parameter["value"])
            scope.put(value, "workflow", "parameters", parameter["name"])
    for key in ("workflow.parameters", "workflow.parameters.json"):
        scope.flat.setdefault(key, parameters_json(parameters))
    by_name = scope.nested["workflow"].setdefault("parameters", {})
    by_name.setdefault("json", scope.flat["workflow.parameters.json"])


def put_outputs(scope: Scope, outputs: dict[str, Any]) -> None:
    """Put the workflow's global outputs into the scope."""
    for parameter in outputs.get("parameters") or ():
        if "value" in parameter:
            scope.put(parameter["value"], "workflow", "outputs", "parameters", parameter["name"])
    for artifact in outputs.get("artifacts") or ():
        scope.put(artifact, "workflow", "outputs", "artifacts", artifact["name"])


def put_state(scope: Scope, status: str, metadata: dict[str, Any]) -> None:
    """Put the workflow's current phase and age into the scope."""
    scope.put(status, "workflow", "status")
    age = now() - parse_timestamp(metadata["creationTimestamp"])
    scope.put(f"{max(age.total_seconds(), 0.0):f}", "workflow", "duration")


def put_failures(scope: Scope, nodes: Nodes) -> None:
    """Put the list of failed nodes into the scope, for the exit handler: JSON, encoded again as a JSON string."""
    failures = [
        {
            "displayName": node["displayName"],
            "message": node.get("message", ""),
            "templateName": node.get("templateName", ""),
            "phase": node["phase"],
            "podName": names.pod_name(nodes.workflow, node["name"], node.get("templateName", "")),
            "finishedAt": node.get("finishedAt"),
        }
        for node in nodes
        if node["phase"] in FAILED
    ]
    listed = json.dumps(failures, separators=(",", ":"), ensure_ascii=False) if failures else "null"
    scope.put(json.dumps(listed, ensure_ascii=False), "workflow", "failures")
