"""An AdmissionReview of Kubernetes, and the answer to it: https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers."""

import base64
import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from periplus_common.errors import Invalid
from periplus_dispatcher.admission import AdmissionAnswer
from periplus_dispatcher.domain import Json

MAX_WARNINGS = 10
MAX_WARNING_CHARACTERS = 250
"""Kubernetes cuts a warning off at 256 and drops some if they have more than 4,096 together."""
_UNPROCESSABLE = 422

Text = Annotated[str, Field(max_length=1024)]


class _Read(BaseModel):
    """Fields that are read; others are left out."""

    model_config = ConfigDict(extra="ignore", strict=True)


class _Kind(_Read):
    group: Text
    kind: Text


class _Metadata(BaseModel):
    """Of the Workflow, as it is, but for the types of the fields that are read."""

    model_config = ConfigDict(extra="allow", strict=True)

    name: Text | None = None
    generateName: Text | None = None  # noqa: N815 - a name of Kubernetes
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None


class _Object(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)

    metadata: _Metadata
    spec: dict[str, Any]


class _Request(_Read):
    uid: Annotated[str, Field(min_length=1, max_length=128)]
    kind: _Kind
    operation: Text
    namespace: Annotated[str, Field(max_length=63)] = ""
    object: Any = None


class _Review(_Read):
    apiVersion: Literal["admission.k8s.io/v1"]  # noqa: N815
    kind: Literal["AdmissionReview"]
    request: _Request


class Review:
    """A review that was read. `workflow` is None for anything but the creation of a Workflow, which is admitted as it is."""

    def __init__(self, uid: str, namespace: str, workflow: Json | None) -> None:
        self.uid = uid
        self.namespace = namespace
        self.workflow = workflow


def read(body: bytes) -> Review:
    """Read a review. Raises `Invalid` with the field's path."""
    review = _checked(_Review, body, "")
    request = review.request
    if (request.kind.group, request.kind.kind, request.operation) != ("argoproj.io", "Workflow", "CREATE"):
        return Review(request.uid, request.namespace, None)
    _checked(_Object, request.object, "request.object")
    return Review(request.uid, request.namespace, request.object)


def answer(uid: str, given: AdmissionAnswer) -> Json:
    """The review that answers another."""
    response: Json = {"uid": uid, "allowed": given.refusal is None}
    if given.refusal is not None:
        message = str(given.refusal) + (f" (to fix it: {given.refusal.fix})" if given.refusal.fix else "")
        response["status"] = {"code": _UNPROCESSABLE, "reason": "Invalid", "message": message}
    elif given.patch:
        patch = json.dumps(given.patch, ensure_ascii=False, separators=(",", ":"))
        response |= {"patchType": "JSONPatch", "patch": base64.b64encode(patch.encode()).decode()}
    if given.warnings:
        response["warnings"] = [_warning(text) for text in given.warnings[:MAX_WARNINGS]]
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}


def _warning(text: str) -> str:
    """A text of one line that Kubernetes shows whole."""
    line = "periplus: " + " ".join(text.split())
    return line if len(line) <= MAX_WARNING_CHARACTERS else line[: MAX_WARNING_CHARACTERS - 1] + "…"


def _checked(kind: Any, value: Any, path: str) -> Any:
    try:
        return kind.model_validate_json(value) if isinstance(value, bytes) else kind.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(str(part)[:100] for part in (path, *first["loc"]) if part != "")
        raise Invalid(first["msg"][:500], field=place) from None
