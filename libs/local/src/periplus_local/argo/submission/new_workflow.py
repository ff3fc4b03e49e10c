"""The metadata and the status that a new workflow starts with."""

import re
import uuid
from typing import Any

from periplus_local.argo import names
from periplus_local.argo.errors import invalid_argument
from periplus_local.argo.scalars import now, timestamp

IGNORED_FIELDS = "accepted with no effect here: "
MEMOIZE_IGNORED = "memoize is replaced by the cache of Periplus"
KUBERNETES_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
COPIED_FIELDS = ("generateName", "labels", "ownerReferences")


def new_metadata(workflow: dict[str, Any]) -> dict[str, Any]:
    """The metadata of a workflow that is created now; raises ArgoError when it has no name and no generateName."""
    submitted = dict(workflow.get("metadata") or {})
    name = submitted.get("name")
    if not name:
        if not submitted.get("generateName"):
            raise invalid_argument("metadata.name: name or generateName is required")
        name = names.generated(str(submitted["generateName"]))
    check_name("metadata.name" if submitted.get("name") else "metadata.generateName", name)
    check_name("metadata.namespace", submitted.get("namespace") or "default")
    for field in ("labels", "annotations"):
        _check_string_map(f"metadata.{field}", submitted.get(field) or {})
    annotations = {**(submitted.get("annotations") or {}), names.POD_NAME_FORMAT: "v2"}
    return {
        **{key: submitted[key] for key in COPIED_FIELDS if key in submitted},
        "annotations": annotations,
        "name": name,
        "namespace": submitted.get("namespace") or "default",
        "uid": str(uuid.uuid4()),
        "creationTimestamp": timestamp(now()),
        "generation": 1,
    }


def check_name(path: str, name: Any) -> None:
    """Refuse a name that Kubernetes would refuse; raises ArgoError."""
    if not isinstance(name, str) or not KUBERNETES_NAME.fullmatch(name):
        raise invalid_argument(f"{path}: {name!r} is not a name of lower case letters, digits, '-' and '.'")


def _check_string_map(path: str, pairs: Any) -> None:
    if not isinstance(pairs, dict):
        raise invalid_argument(f"{path}: is not a map")
    for key, value in pairs.items():
        if not isinstance(value, str):
            raise invalid_argument(f"{path}.{key}: is not a string")


def new_status(
    repository: dict[str, Any], template_spec: dict[str, Any] | None, ignored: list[str]
) -> dict[str, Any]:
    """The status of a new workflow: its artifact repository, the spec of its WorkflowTemplate, ignored fields."""
    status: dict[str, Any] = {"artifactRepositoryRef": repository}
    if template_spec is not None:
        status["storedWorkflowTemplateSpec"] = template_spec
    return status | ignored_fields_warning(ignored)


def ignored_fields_warning(ignored: list[str]) -> dict[str, Any]:
    """A status with the condition that lists the ignored fields; empty when there are none."""
    if not ignored:
        return {}
    messages = [IGNORED_FIELDS + ", ".join(ignored)]
    messages += [MEMOIZE_IGNORED] if any(path.endswith(".memoize") for path in ignored) else []
    return {"conditions": [{"type": "SpecWarning", "status": "True", "message": "; ".join(messages)}]}
