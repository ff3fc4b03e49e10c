"""Arguments: each has a value, and a template gets every input that it requires."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from periplus_manifest.errors import ManifestError
from periplus_manifest.gotext import parameter_text

from . import naming
from .manifest import Fields, items

# For each kind of store, the field that locates an artifact in it.
_LOCATIONS = {
    **dict.fromkeys(("s3", "oss", "gcs", "plugin"), "key"),
    **dict.fromkeys(("http", "artifactory"), "url"),
    "git": "repo",
    "hdfs": "path",
    "azure": "blob",
}
_SOURCES = ("configMapKeyRef", "event", "supplied")
_OUTPUT_SOURCES = ("path", "jsonPath", "parameter", "expression")


def check_arguments(arguments: Any, path: str, *, may_be_empty: bool = False) -> None:
    """Check the arguments of a workflow, a step, a task or a hook."""
    parameters, artifacts = items(arguments, "parameters"), items(arguments, "artifacts")
    naming.check_parameters(parameters, f"{path}.parameters")
    naming.check_parameters(artifacts, f"{path}.artifacts")
    for index, parameter in enumerate(parameters):
        check_value(parameter, f"{path}.parameters[{index}]", may_be_empty=may_be_empty)
    for index, artifact in enumerate(artifacts):
        _check_artifact(artifact, f"{path}.artifacts[{index}]")


def check_value(parameter: Fields, path: str, *, may_be_empty: bool) -> None:
    """Check that one argument has a value, from an allowed source, and one of its enum."""
    value, source = parameter.get("value"), parameter.get("valueFrom")
    if value is None and source is None and not may_be_empty:
        raise ManifestError(path, f"value or valueFrom of parameter '{parameter['name']}' is required")
    if source is not None:
        allowed = any(source.get(each) not in (None, "") for each in _SOURCES)
        if not allowed or any(source.get(each) for each in _OUTPUT_SOURCES):
            raise ManifestError(f"{path}.valueFrom", "only allows: default, configMapKeyRef and supplied")
    choices = parameter.get("enum")
    if choices is None:
        return
    if not choices:
        raise ManifestError(f"{path}.enum", "should contain at least one value")
    if value is None:
        if may_be_empty:
            return
        raise ManifestError(f"{path}.value", "is required")
    if parameter_text(value) not in {parameter_text(choice) for choice in choices}:
        raise ManifestError(
            f"{path}.value", f"'{parameter_text(value)[:80]}' is not one of the parameter's enum"
        )


def has_location(artifact: Fields) -> bool:
    """Say whether an artifact has a location."""
    if artifact.get("raw") is not None:
        return True
    return any((artifact.get(store) or {}).get(field) for store, field in _LOCATIONS.items())


def _check_artifact(artifact: Fields, path: str) -> None:
    if not artifact.get("from") and not has_location(artifact):
        raise ManifestError(path, f"from, or a location, of artifact '{artifact['name']}' is required")
    if artifact.get("from") and artifact.get("fromExpression"):
        raise ManifestError(path, "shouldn't have both from and fromExpression")


def check_inputs(
    template: Fields, parameters: Iterable[Fields], artifacts: Iterable[Fields], path: str
) -> None:
    """Check that a template gets its inputs; `path` is that of the arguments."""
    supplied = {parameter.get("name"): parameter for parameter in parameters}
    for declared in items(template, "inputs", "parameters"):
        name = declared.get("name")
        source, has_value = declared, declared.get("value") is not None or declared.get("default") is not None
        if name in supplied:
            source, has_value = supplied[name], supplied[name].get("value") is not None
        if not has_value and not (source.get("valueFrom") or {}).get("configMapKeyRef"):
            raise ManifestError(f"{path}.parameters", f"inputs.parameters.{name} was not supplied")
    passed = {artifact.get("name") for artifact in artifacts}
    for declared in items(template, "inputs", "artifacts"):
        if declared.get("optional") or has_location(declared) or declared.get("name") in passed:
            continue
        raise ManifestError(f"{path}.artifacts", f"inputs.artifacts.{declared.get('name')} was not supplied")
