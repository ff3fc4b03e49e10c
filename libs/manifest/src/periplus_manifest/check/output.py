"""The outputs of a template: each has one source, which its type of template allows."""

from __future__ import annotations

from periplus_manifest.errors import ManifestError

from . import fields, naming, reference
from .manifest import EXECUTABLE_TYPES, Fields, items
from .reference import Scope

_SOURCES = ("path", "jqFilter", "jsonPath", "parameter", "expression")


def check(template: Fields, kind: str, path: str, scope: Scope) -> None:
    """Check the outputs of a template of type `kind`."""
    outputs = template.get("outputs") or {}
    parameters, artifacts = items(outputs, "parameters"), items(outputs, "artifacts")
    naming.check_parameters(parameters, f"{path}.outputs.parameters", may_be_tagged=True)
    naming.check_parameters(artifacts, f"{path}.outputs.artifacts", may_be_tagged=True)
    reference.check(outputs, f"{path}.outputs", scope)
    for index, artifact in enumerate(artifacts):
        _artifact(artifact, kind, f"{path}.outputs.artifacts[{index}]", scope)
    for index, parameter in enumerate(parameters):
        _parameter(parameter, kind, f"{path}.outputs.parameters[{index}]", scope)


def _artifact(artifact: Fields, kind: str, path: str, scope: Scope) -> None:
    if kind in EXECUTABLE_TYPES:
        fields.check_artifact_path(artifact, path)
    elif artifact.get("path"):
        raise ManifestError(f"{path}.path", "is only valid in container and script templates")
    _global_name(artifact, path)
    if artifact.get("fromExpression"):
        reference.check_expression(artifact["fromExpression"], f"{path}.fromExpression", scope)


def _global_name(output: Fields, path: str) -> None:
    name = output.get("globalName")
    if name and not naming.is_tagged(name):
        naming.check_parameter(name, f"{path}.globalName")


def _parameter(parameter: Fields, kind: str, path: str, scope: Scope) -> None:
    source = parameter.get("valueFrom")
    if source is not None and parameter.get("value") is not None:
        raise ManifestError(path, "has both valueFrom and value specified, choose one")
    _global_name(parameter, path)
    if parameter.get("value") is not None:
        return
    if source is None:
        raise ManifestError(path, "does not have valueFrom or value specified")
    present = [each for each in _SOURCES if source.get(each)]
    present += ["supplied"] if source.get("supplied") is not None else []
    if len(present) != 1:
        what = "multiple types specified" if present else "type unspecified"
        raise ManifestError(f"{path}.valueFrom", f"{what}; choose one of: {', '.join(_SOURCES)}, supplied")
    allowed = _allowed_sources(kind)
    if allowed and present[0] not in allowed:
        raise ManifestError(
            f"{path}.valueFrom", f"{' or '.join(allowed)} must be specified for {kind} templates"
        )
    if source.get("expression"):
        reference.check_expression(source["expression"], f"{path}.valueFrom.expression", scope)


def _allowed_sources(kind: str) -> tuple[str, ...]:
    if kind in ("container", "containerSet", "script"):
        return ("path",)
    if kind == "resource":
        return ("jqFilter", "jsonPath")
    return ("parameter", "expression") if kind in ("dag", "steps") else ()
