"""A Workflow that was rewritten before others submitted it carries what its run is followed with, in an annotation.

It was rewritten when it was created, or it is one of a template that was adopted, whose Workflows get the annotation by
`workflowMetadata`. Nothing of it is stored before the Workflow is seen: whoever is asked to rewrite may be asked for one that is
never made. The annotation is trusted as little as the Workflow that it is part of, and binds its spec: after another
change of it nothing is served to its gates any more, and nothing is recorded.
"""

import base64
import json
import logging
import zlib
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from periplus_common import digest
from periplus_common.errors import Invalid
from periplus_dispatcher.domain import Json, RunState, StepNode, TemplateRole
from periplus_manifest.gotext import parameter_text

log = logging.getLogger(__name__)

REWRITTEN_LABEL = "periplus.dev/rewritten"
"""Of a Workflow that was rewritten: it is not rewritten again."""
ANNOTATION = "periplus.dev/rewrite"
MAX_ANNOTATION_BYTES = 128 << 10
"""Kubernetes takes 256 KiB for all annotations of an object."""
MAX_CARRIED_BYTES = 16 << 20
"""Of the annotation once it is unpacked."""

_BOUND_FIELDS = ("entrypoint", "templates")
"""Fields of a spec that decide what its steps do. Argo adds its operators' defaults to others."""
_GATES = (TemplateRole.GATE, TemplateRole.FAN_OUT_GATE)


@dataclass(frozen=True)
class Rewrite:
    """What a rewritten Workflow carries.

    `nodes` are the steps of its plan, `source` is its spec before the rewrite. `spec` and `arguments` are digests of the
    rewritten spec and of the values of its parameters, which it was planned with. Of an adopted template, nodes, arguments and
    the templates of the state are empty, as each run has its own; `whole` is the digest of all of the rewritten spec, and
    `workflow_metadata` what a CronWorkflow had before.
    """

    state: RunState
    nodes: tuple[StepNode, ...]
    source: Json
    entrypoint: str
    spec: str
    arguments: str = ""
    whole: str = ""
    workflow_metadata: Json | None = None
    version: Literal[1] = 1

    @property
    def is_of_template(self) -> bool:
        """Whether it is that of an adopted template."""
        return bool(self.whole)

    def fits(self, spec: Json) -> bool:
        """Whether a spec is the one that the rewrite made, with the parameters that it was planned with."""
        has_parameters = self.is_of_template or self.arguments == arguments_digest(spec)
        return has_parameters and self.spec == spec_digest(spec)


_REWRITE = TypeAdapter(Rewrite)


def encode(rewrite: Rewrite) -> str:
    """The value of the annotation."""
    return base64.b64encode(zlib.compress(_REWRITE.dump_json(rewrite), 6)).decode()


def decode(text: str) -> Rewrite:
    """The rewrite in an annotation. Raises `Invalid`."""
    field = f"metadata.annotations['{ANNOTATION}']"
    if len(text) > MAX_ANNOTATION_BYTES:
        raise Invalid(f"has more than {MAX_ANNOTATION_BYTES} bytes", field=field)
    try:
        unpacking = zlib.decompressobj()
        packed = unpacking.decompress(base64.b64decode(text, validate=True), MAX_CARRIED_BYTES)
        if unpacking.unconsumed_tail:
            raise Invalid(f"unpacks to more than {MAX_CARRIED_BYTES} bytes", field=field)
        found = _REWRITE.validate_json(packed)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part)[:100] for part in first["loc"])
        raise Invalid(f"{place}: {first['msg']}", field=field) from None
    except (ValueError, zlib.error) as error:
        raise Invalid(f"is not one of Periplus: {error}", field=field) from None
    if not found.is_of_template and not has_templates(found.state):
        raise Invalid("names a template that it does not have", field=field)
    return found


def read(metadata: Json) -> Rewrite | None:
    """The rewrite that a Workflow with this metadata carries; None if it carries none that can be read."""
    text = (metadata.get("annotations") or {}).get(ANNOTATION)
    if not isinstance(text, str):
        return None
    try:
        return decode(text)
    except Invalid as error:
        log.warning("%s: its rewrite can not be read: %s", metadata.get("name"), error)
        return None


def whole_digest(spec: Json) -> str:
    """The digest of all of a template's spec, but for what the rewrite adds to the metadata of its Workflows."""
    return _digest(_normal(without_metadata(spec)))


def without_metadata(spec: Json) -> Json:
    """A spec without what the rewrite adds to the metadata of its Workflows."""
    metadata = dict(spec.get("workflowMetadata") or {})
    for field, ours in (("labels", REWRITTEN_LABEL), ("annotations", ANNOTATION)):
        if ours in (present := metadata.get(field) or {}):
            metadata[field] = {name: value for name, value in present.items() if name != ours}
    return {**spec, "workflowMetadata": metadata} if "workflowMetadata" in spec else spec


def released(template: Json) -> Json:
    """A WorkflowTemplate as it was before it was adopted; as it is, if it was not, or was edited since."""
    spec = template.get("spec") or {}
    rewrite = read(spec.get("workflowMetadata") or {})
    if rewrite is None or rewrite.whole != whole_digest(spec):
        return template
    return {**template, "spec": rewrite.source}


def spec_digest(spec: Json) -> str:
    """The digest of the fields that decide what a spec's steps do, the same for the spec as Kubernetes got it and as Argo gives it."""
    return _digest({name: _normal(spec[name]) for name in _BOUND_FIELDS if name in spec})


def arguments_digest(spec: Json) -> str:
    """The digest of the values of the workflow's parameters."""
    arguments = spec.get("arguments")
    declared = arguments.get("parameters") if isinstance(arguments, dict) else None
    values = {}
    for each in declared if isinstance(declared, list) else ():
        if isinstance(each, dict) and isinstance(value := each.get("value"), str | int | float):
            values[str(each.get("name"))] = parameter_text(value)
    return _digest(values)


def _digest(value: Any) -> str:
    return digest.sha256(json.dumps(value, sort_keys=True).encode())


def has_templates(state: RunState) -> bool:
    """Whether a state has the templates that its gates stand for."""
    named = {each.template for each in state.generated.values() if each.role in _GATES}
    named |= {member.template for members in state.stretches.values() for member in members.values()}
    gates = {n for n, each in state.generated.items() if each.role is TemplateRole.STRETCH_GATE}
    return named <= state.templates.keys() and gates <= state.stretches.keys()


def _normal(value: Any) -> Any:
    """A value without what Argo leaves out or adds where it writes it anew: empty fields, numbers for texts.

    "0" and "false" count as empty: Argo leaves out some of them and not others.
    """
    if isinstance(value, dict):
        fields = {name: _normal(each) for name, each in value.items()}
        return {name: each for name, each in fields.items() if each not in ("", "0", "false", {}, [])}
    if isinstance(value, list):
        return [_normal(each) for each in value]
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value)
