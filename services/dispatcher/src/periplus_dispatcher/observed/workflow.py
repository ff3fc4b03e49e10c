"""A Workflow that others submitted: what is read of it, checked and bounded, and the identity of its run."""

import hashlib
import logging
from datetime import datetime
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from periplus_common.errors import Invalid
from periplus_common.object_key import MAX_KEY_BYTES
from periplus_dispatcher.domain import Json, ObservedWorkflow
from periplus_manifest.bounds import MAX_DEPTH, MAX_NODES

log = logging.getLogger(__name__)

MAX_NAME_CHARACTERS = 1024
"""Of a name in a node, as of a step's path."""
MAX_MESSAGE_CHARACTERS = 10_000
"""Of a message of a node or a Workflow; the rest is cut off."""
UID_CHARACTERS = 16
"""Of the digest of a Workflow's uid, in the id of its run."""


def _without_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("contains the character U+0000")
    return text


def _point_in_time(text: str) -> str:
    if datetime.fromisoformat(text).tzinfo is None:
        raise ValueError("has no time zone")
    return text


def _message(text: str) -> str:
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")[:MAX_MESSAGE_CHARACTERS]


Name = Annotated[str, Field(max_length=MAX_NAME_CHARACTERS), AfterValidator(_without_nul)]
Time = Annotated[str, AfterValidator(_point_in_time)]
Message = Annotated[str, AfterValidator(_message)]


class _Read(BaseModel):
    """Fields that are read; others are left out."""

    model_config = ConfigDict(extra="ignore", strict=True)


class _Metadata(_Read):
    name: Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$")]
    uid: Annotated[str, Field(min_length=1, max_length=128), AfterValidator(_without_nul)]
    generateName: Name = ""  # noqa: N815  # these names are Argo's
    resourceVersion: Name = ""  # noqa: N815
    creationTimestamp: Time  # noqa: N815
    labels: dict[str, Name] | None = None
    annotations: dict[str, str] | None = None


class _Parameter(_Read):
    name: Name
    value: str | None = None


class _Object(_Read):
    key: Annotated[str, Field(min_length=1, max_length=MAX_KEY_BYTES), AfterValidator(_without_nul)]
    bucket: Name | None = None
    endpoint: Name | None = None


class _Raw(_Read):
    data: str = ""


class _Artifact(_Read):
    name: Name
    s3: _Object | None = None
    raw: _Raw | None = None


class _Values(_Read):
    parameters: list[_Parameter] | None = None
    artifacts: list[_Artifact] | None = None
    result: str | None = None
    exitCode: Annotated[str, Field(pattern=r"^-?\d{1,9}$")] | None = None  # noqa: N815


class _TemplateRef(_Read):
    name: Name = ""
    template: Name = ""
    clusterScope: bool = False  # noqa: N815


class _NodeFlag(_Read):
    hooked: bool = False
    retried: bool = False


class _Node(_Read):
    id: Annotated[Name, Field(min_length=1)]
    displayName: Name  # noqa: N815
    type: Name
    phase: Name = ""
    templateName: Name | None = None  # noqa: N815
    templateScope: Name | None = None  # noqa: N815
    templateRef: _TemplateRef | None = None  # noqa: N815
    boundaryID: Name | None = None  # noqa: N815
    hostNodeName: Name | None = None  # noqa: N815
    message: Message | None = None
    startedAt: Time | None = None  # noqa: N815
    finishedAt: Time | None = None  # noqa: N815
    inputs: _Values | None = None
    outputs: _Values | None = None
    children: list[Name] | None = None
    taskResultSynced: bool | None = None  # noqa: N815
    nodeFlag: _NodeFlag | None = None  # noqa: N815


class _S3(_Read):
    bucket: Name = ""
    endpoint: Name = ""


class _Repository(_Read):
    s3: _S3 | None = None


class _RepositoryRef(_Read):
    artifactRepository: _Repository | None = None  # noqa: N815


class _Status(_Read):
    phase: Name = ""
    message: Message | None = None
    finishedAt: Time | None = None  # noqa: N815
    artifactRepositoryRef: _RepositoryRef | None = None  # noqa: N815
    storedWorkflowTemplateSpec: dict[str, Any] | None = None  # noqa: N815
    storedTemplates: dict[str, dict[str, Any]] | None = None  # noqa: N815


R = TypeVar("R", bound=_Read)


def checked(workflow: object) -> Json:
    """A copy of a Workflow with the fields that are read. Nodes that break a bound are left out, with a warning.

    Its spec is checked by who reads it. Raises `Invalid` with the field's path.
    """
    if not isinstance(workflow, dict):
        raise Invalid("is not an object", field="workflow")
    metadata = _read(_Metadata, workflow.get("metadata"), "metadata")
    spec = workflow.get("spec")
    if not isinstance(spec, dict):
        raise Invalid("is not an object", field="spec")
    status = workflow.get("status") or {}
    read = _read(_Status, status, "status")
    nodes = status.get("nodes") or {}
    if not isinstance(nodes, dict) or len(nodes) > MAX_NODES:
        raise Invalid(f"is not an object of at most {MAX_NODES} nodes", field="status.nodes")
    read["nodes"] = _nodes(metadata["name"], nodes)
    return {"metadata": metadata, "spec": spec, "status": read}


def observed_workflow(workflow: Json, namespace: str) -> ObservedWorkflow:
    """The identity of a Workflow that was checked."""
    metadata = workflow["metadata"]
    return ObservedWorkflow(namespace, metadata["name"], metadata["uid"])


def run_id(name: str, uid: str) -> str:
    """The id of the run of a Workflow that others submitted.

    No run that Periplus submits has it, as a Workflow's name has no "@", and no other Workflow of this name, which has
    another uid.
    """
    return f"{name}@{hashlib.sha256(uid.encode()).hexdigest()[:UID_CHARACTERS]}"


def _nodes(workflow: str, nodes: Json) -> dict[str, Json]:
    found: dict[str, Json] = {}
    errors: list[str] = []
    for node_id, node in nodes.items():
        try:
            read = _read(_Node, node, f"status.nodes[{str(node_id)[:100]!r}]")
            if read["id"] != node_id:
                raise Invalid("is not its key", field=f"status.nodes[{str(node_id)[:100]!r}].id")
        except Invalid as error:
            errors.append(str(error))
        else:
            found[node_id] = read
    for node_id in _too_deep(found):
        errors.append(
            f"status.nodes[{node_id!r}]: more than {MAX_DEPTH} nodes contain it, or it contains itself"
        )
        del found[node_id]
    if errors:
        log.warning("%s: %d of its nodes are left out: %s", workflow, len(errors), errors[0])
    return found


def _too_deep(nodes: dict[str, Json]) -> list[str]:
    """The nodes that are in more than `MAX_DEPTH` others, as are those that contain one another."""
    deep = []
    for node_id, node in nodes.items():
        boundary, depth = node.get("boundaryID"), 0
        while boundary in nodes and depth <= MAX_DEPTH:
            boundary, depth = nodes[boundary].get("boundaryID"), depth + 1
        if depth > MAX_DEPTH:
            deep.append(node_id)
    return deep


def _read(kind: type[R], value: object, path: str) -> Json:
    try:
        return kind.model_validate(value).model_dump(exclude_none=True)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part)[:100] for part in (path, *first["loc"]))
        raise Invalid(first["msg"], field=place) from None
