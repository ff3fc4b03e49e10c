"""What a new workflow is given: its name and metadata, and the status that it starts with."""

import uuid
from typing import Any

from periplus_local.argo import names
from periplus_local.argo.faults import invalid
from periplus_local.argo.run import LABEL

EFFECTLESS = "accepted with no effect here: "
MEMOIZE = "memoize is replaced by the cache of Periplus"
KEPT = ("generateName", "labels", "ownerReferences")


def metadata(workflow: dict[str, Any]) -> dict[str, Any]:
    """The metadata of a workflow that is created now; Fault when it has no name and no generateName."""
    given = dict(workflow.get("metadata") or {})
    name = given.get("name")
    if not name:
        if not given.get("generateName"):
            raise invalid("metadata.name: name or generateName is required")
        name = names.generated(given["generateName"])
    annotations = {**(given.get("annotations") or {}), LABEL + "pod-name-format": "v2"}
    return {
        **{key: given[key] for key in KEPT if key in given},
        "annotations": annotations,
        "name": name,
        "namespace": given.get("namespace") or "default",
        "uid": str(uuid.uuid4()),
        "creationTimestamp": names.stamp(names.now()),
        "generation": 1,
    }


def status(repository: dict[str, Any], stored: dict[str, Any] | None, idle: list[str]) -> dict[str, Any]:
    """The status of a new workflow: where artifacts go, the spec of its template, what has no effect."""
    made: dict[str, Any] = {"artifactRepositoryRef": repository}
    if stored is not None:
        made["storedWorkflowTemplateSpec"] = stored
    if idle:
        said = [EFFECTLESS + ", ".join(idle)]
        said += [MEMOIZE] if any(path.endswith(".memoize") for path in idle) else []
        warning = {"type": "SpecWarning", "status": "True", "message": "; ".join(said)}
        made["conditions"] = [warning]
    return made
