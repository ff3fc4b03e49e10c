"""The spec that runs for a workflow with `workflowTemplateRef`: its own, merged with that of the template as Argo does it."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

Fields = dict[str, Any]

TEMPLATE_LABELS = {
    False: "workflows.argoproj.io/workflow-template",
    True: "workflows.argoproj.io/cluster-workflow-template",
}
"""The label that Argo gives a workflow of a WorkflowTemplate and, with True, of a ClusterWorkflowTemplate."""

_NAMED = "name"
_MERGE_KEYS = {
    "templates": _NAMED,
    "volumes": _NAMED,
    "tolerations": "key",
    "imagePullSecrets": _NAMED,
    "hostAliases": "ip",
    "parameters": _NAMED,
    "artifacts": _NAMED,
    "tasks": _NAMED,
    "initContainers": _NAMED,
    "sidecars": _NAMED,
    "env": _NAMED,
    "volumeMounts": "mountPath",
    "volumeDevices": "devicePath",
    "ports": "containerPort",
}
"""Lists whose items are merged by a key; every other list is replaced as a whole."""
_LOCATIONS = frozenset(("s3", "gcs", "azure", "oss", "hdfs", "http", "artifactory", "git", "plugin", "raw"))
_SOURCES = ("value", "default", "valueFrom")


def merged_spec(own: Mapping[str, Any], template: Mapping[str, Any]) -> Fields:
    """Merge the spec of a workflow with that of its template (`util/merge.go` of Argo). Neither is changed.

    A field of the workflow wins; maps are merged, and lists whose items have a key. Hooks and `labelsFrom` are taken
    whole, by name. Whether it is suspended is said by the workflow alone. A parameter with a value, a default or a source
    is that of the workflow or of the template as a whole.
    """
    own = {name: value for name, value in own.items() if name != "workflowTemplateRef"}
    found: Fields = _merged(_without_empty(template), _without_empty(own))
    found.pop("workflowTemplateRef", None)
    if own.get("suspend") is None:
        found.pop("suspend", None)
    _take_whole(found, own, template, "hooks")
    metadata = [(each.get("workflowMetadata") or {}) for each in (own, template)]
    if any(each.get("labelsFrom") for each in metadata):
        _take_whole(found["workflowMetadata"], metadata[0], metadata[1], "labelsFrom")
    arguments = [(each.get("arguments") or {}) for each in (own, template)]
    if any(arguments):
        found["arguments"] = {
            **found["arguments"],
            **_arguments(found["arguments"], arguments[0], arguments[1]),
        }
    return copy.deepcopy(found)


def _without_empty(spec: Mapping[str, Any]) -> Fields:
    """The fields that Argo writes into the JSON that it merges: an empty text, list or map is absent there."""
    return {name: value for name, value in spec.items() if value is not None and value not in ("", [], {})}


def _take_whole(found: Fields, own: Mapping[str, Any], template: Mapping[str, Any], field: str) -> None:
    taken = {**(template.get(field) or {}), **(own.get(field) or {})}
    if taken:
        found[field] = taken


def _merged(below: Any, above: Any, field: str = "") -> Any:
    if isinstance(below, Mapping) and isinstance(above, Mapping):
        result = dict(below)
        for name, value in above.items():
            result[name] = _merged(below[name], value, name) if name in below else value
        return result
    if isinstance(below, list) and isinstance(above, list) and (key := _MERGE_KEYS.get(field)):
        return _merged_by(key, below, above)
    return above


def _merged_by(key: str, below: Iterable[Any], above: Iterable[Any]) -> list[Any]:
    result = list(below)
    at = {_key(each, key): index for index, each in enumerate(result)}
    for each in above:
        index = at.get(_key(each, key))
        if index is None:
            result.append(each)
        else:
            result[index] = _merged(result[index], each)
    return result


def _key(item: Any, key: str) -> str:
    return str(item.get(key)) if isinstance(item, Mapping) else ""


def _arguments(found: Fields, own: Mapping[str, Any], template: Mapping[str, Any]) -> Fields:
    result: Fields = {}
    parameters = [
        {
            p["name"]: p
            for p in each.get("parameters") or ()
            if any(p.get(field) is not None for field in _SOURCES)
        }
        for each in (template, own)
    ]
    if found.get("parameters"):
        taken = {**parameters[0], **parameters[1]}
        result["parameters"] = [taken.get(p["name"], p) for p in found["parameters"]]
    if found.get("artifacts"):
        artifacts = [{a["name"]: a for a in each.get("artifacts") or ()} for each in (template, own)]
        result["artifacts"] = [
            _artifact(a, artifacts[1].get(a["name"]) or artifacts[0][a["name"]]) for a in found["artifacts"]
        ]
    return result


def _artifact(merged: Mapping[str, Any], taken: Mapping[str, Any]) -> Mapping[str, Any]:
    """The artifact of the workflow; of the same kind of store, with the fields of its location that the template has."""
    stores = [_LOCATIONS & set(each) for each in (merged, taken)]
    if len(stores[0]) == 1 and stores[0] == stores[1]:
        (store,) = stores[0]
        return {**taken, store: merged[store]}
    return taken
