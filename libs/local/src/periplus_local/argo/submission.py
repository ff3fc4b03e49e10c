"""From what a client sends to a workflow that may run: read, normalised, checked, or refused by field."""

import json
from typing import Any

from periplus_local.argo import findings, machine, references
from periplus_local.argo.faults import invalid
from periplus_local.argo.templates import Library
from periplus_manifest import check, gotext
from periplus_manifest.errors import ManifestError

LARGEST = 1 << 20
DEEPEST = 64
TEXTS = ("value", "default")


def body(raw: bytes) -> dict[str, Any]:
    """The JSON object that a client sends; Fault for anything that is none, or is too large or deep."""
    if len(raw) > LARGEST + 4096:
        raise invalid(f"the request is larger than {LARGEST} bytes")
    try:
        value = json.loads(raw or b"{}", object_pairs_hook=_pairs, parse_constant=_constant)
    except (ValueError, RecursionError) as error:
        raise invalid(f"the request is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise invalid("the request is not a JSON object")
    if _depth(value) > DEEPEST + 2:
        raise invalid(f"the request is nested more than {DEEPEST} deep")
    return value


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError("a key is there twice")
    return made


def _constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number of JSON")


def _depth(value: Any) -> int:
    deepest, stack = 0, [(value, 1)]
    while stack:
        item, depth = stack.pop()
        deepest = max(deepest, depth)
        held = item.values() if isinstance(item, dict) else item if isinstance(item, list) else ()
        stack.extend((inner, depth + 1) for inner in held if isinstance(inner, dict | list))
    return deepest


def accepted(
    workflow: dict[str, Any], library: Library, endpoint: str
) -> tuple[dict[str, Any], dict[str, Any] | None, list[str]]:
    """A workflow that may run, the spec it takes from a WorkflowTemplate if any, and the idle fields.

    The idle fields are the paths of those that have no effect here; `endpoint` is that of the S3 store.
    Raises Fault, naming the field, for what is wrong and for what cannot run here.
    """
    if not isinstance(workflow.get("spec"), dict):
        raise invalid("spec: is not an object")
    if len(json.dumps(workflow, ensure_ascii=False, separators=(",", ":")).encode()) > LARGEST:
        raise invalid(f"workflow: is larger than {LARGEST} bytes")
    workflow = {key: value for key, value in workflow.items() if key != "status" or _says_something(value)}
    idle = refuse("workflow", workflow)
    checked("Workflow", workflow)
    made = normalised(workflow)
    stored = with_template(made, library)
    if stored is not None:
        checked("Workflow", {**made, "spec": stored})
        idle = refuse("spec", stored, "spec")
    machine.check(stored or made["spec"], endpoint)
    references.check(stored or made["spec"], library)
    return made, stored, idle


def _says_something(status: Any) -> bool:
    """Whether a status is more than the empty one that Argo's own client sends along."""
    return any(value is not None for value in status.values()) if isinstance(status, dict) else bool(status)


def checked(kind: str, document: dict[str, Any]) -> None:
    """Refuse a document of the kind that Argo would refuse; raises Fault."""
    try:
        check.check({"apiVersion": "argoproj.io/v1alpha1", "kind": kind, **document})
    except ManifestError as error:
        raise invalid(str(error)) from error


def refuse(kind: str, value: Any, path: str = "") -> list[str]:
    """The paths of the fields without effect; Fault for the first that is refused."""
    idle: list[str] = []
    for finding in findings.findings(kind, value, path):
        if finding.refused:
            raise invalid(f"{finding.path}: {finding.refused}")
        idle.append(finding.path)
    return idle


def normalised(value: Any, path: tuple[str, ...] = ()) -> Any:
    """The manifest as Argo keeps it: values of parameters are text, whatever scalar was written."""
    if path and path[-1] == "withItems":
        return value
    if isinstance(value, dict):
        made = {key: normalised(item, (*path, key)) for key, item in value.items() if item is not None}
        return _texts(made) if path and path[-1] in {"parameters", "valueFrom"} else made
    if isinstance(value, list):
        return [normalised(item, path) for item in value]
    return value


def _texts(item: dict[str, Any]) -> dict[str, Any]:
    for key in TEXTS:
        if key in item and not isinstance(item[key], str):
            item[key] = gotext.parameter_text(item[key])
    if isinstance(item.get("enum"), list):
        item["enum"] = [gotext.parameter_text(choice) for choice in item["enum"]]
    return item


def with_template(workflow: dict[str, Any], library: Library) -> dict[str, Any] | None:
    """The spec that runs for a workflow that refers to a WorkflowTemplate; None when it refers to none."""
    reference = (workflow.get("spec") or {}).get("workflowTemplateRef")
    if not reference:
        return None
    if not isinstance(reference, dict) or not isinstance(reference.get("name"), str):
        raise invalid("spec.workflowTemplateRef.name: is required")
    spec = library.spec_of(reference["name"], bool(reference.get("clusterScope")))
    own = {key: value for key, value in workflow["spec"].items() if key != "workflowTemplateRef"}
    made = {**spec, **{key: value for key, value in own.items() if key not in {"arguments", "templates"}}}
    arguments = {}
    for kind in ("parameters", "artifacts"):
        below = {item["name"]: item for item in (spec.get("arguments") or {}).get(kind) or ()}
        above = {item["name"]: item for item in (own.get("arguments") or {}).get(kind) or ()}
        joined = list({**below, **above}.values())
        if joined:
            arguments[kind] = joined
    templates = {item["name"]: item for item in spec.get("templates") or ()}
    templates.update({item["name"]: item for item in own.get("templates") or ()})
    return {**made, "arguments": arguments, "templates": list(templates.values())}
