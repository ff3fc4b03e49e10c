"""What a new workflow is given: its name and metadata, and the status that it starts with."""

import re
import uuid
from typing import Any

from periplus_local.argo import names
from periplus_local.argo.faults import invalid

EFFECTLESS = "accepted with no effect here: "
MEMOIZE = "memoize is replaced by the cache of Periplus"
NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
KEPT = ("generateName", "labels", "ownerReferences")


def metadata(workflow: dict[str, Any]) -> dict[str, Any]:
    """The metadata of a workflow that is created now; Fault when it has no name and no generateName."""
    given = dict(workflow.get("metadata") or {})
    name = given.get("name")
    if not name:
        if not given.get("generateName"):
            raise invalid("metadata.name: name or generateName is required")
        name = names.generated(str(given["generateName"]))
    check_name("metadata.name" if given.get("name") else "metadata.generateName", name)
    check_name("metadata.namespace", given.get("namespace") or "default")
    for field in ("labels", "annotations"):
        _check_texts(f"metadata.{field}", given.get(field) or {})
    annotations = {**(given.get("annotations") or {}), names.POD_NAMES: "v2"}
    return {
        **{key: given[key] for key in KEPT if key in given},
        "annotations": annotations,
        "name": name,
        "namespace": given.get("namespace") or "default",
        "uid": str(uuid.uuid4()),
        "creationTimestamp": names.stamp(names.now()),
        "generation": 1,
    }


def check_name(path: str, name: Any) -> None:
    """Refuse a name that Kubernetes would not take; raises Fault."""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise invalid(f"{path}: {name!r} is not a name of lower case letters, digits, '-' and '.'")


def _check_texts(path: str, pairs: Any) -> None:
    if not isinstance(pairs, dict):
        raise invalid(f"{path}: is not a map")
    for key, value in pairs.items():
        if not isinstance(value, str):
            raise invalid(f"{path}.{key}: is not a text")


def status(repository: dict[str, Any], stored: dict[str, Any] | None, idle: list[str]) -> dict[str, Any]:
    """The status of a new workflow: where artifacts go, the spec of its template, what has no effect."""
    made: dict[str, Any] = {"artifactRepositoryRef": repository}
    if stored is not None:
        made["storedWorkflowTemplateSpec"] = stored
    return made | warning(idle)


def warning(idle: list[str]) -> dict[str, Any]:
    """The part of a status that says which fields have no effect; nothing when all have."""
    if not idle:
        return {}
    said = [EFFECTLESS + ", ".join(idle)]
    said += [MEMOIZE] if any(path.endswith(".memoize") for path in idle) else []
    return {"conditions": [{"type": "SpecWarning", "status": "True", "message": "; ".join(said)}]}
