"""Read and check a manifest. The most recent texts and what they expand to are kept, for requests that repeat them."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from periplus_common.errors import Invalid
from periplus_dispatcher.domain import Json
from periplus_dispatcher.manifest.calls import ExpandedWorkflow
from periplus_dispatcher.manifest.expand import expand
from periplus_dispatcher.manifest.uncacheable import StepEnvironment
from periplus_manifest import check as checking
from periplus_manifest import read as texts
from periplus_manifest.errors import ManifestError

CACHED_MANIFESTS = 16
MAX_CACHED_CHARACTERS = 64 << 10
"""Longer manifests are not kept, so that the memory of the kept ones stays small."""

_NAME_FORMS = {
    "name": re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?"),
    "generateName": re.compile(r"[a-z0-9][-a-z0-9.]*"),
}


@dataclass(frozen=True)
class CheckedManifest:
    """A checked manifest as JSON text, and the values of its parameters. Immutable, as requests share it."""

    text: str
    values: tuple[tuple[str, str], ...]

    @property
    def manifest(self) -> Json:
        """The manifest, a new copy at each call."""
        found: Json = json.loads(self.text)
        return found

    @property
    def parameters(self) -> dict[str, str]:
        """The values of the workflow's parameters."""
        return dict(self.values)

    def expand(self, environment: StepEnvironment) -> ExpandedWorkflow:
        """Expand it to its calls. Raises `Invalid` with the field's path."""
        # An expression can use the time or a random number, which differ at each evaluation.
        has_expression = "{{=" in self.text or any("{{=" in value for _, value in self.values)
        if has_expression or len(self.text) > MAX_CACHED_CHARACTERS:
            return _expand(self, environment)
        return _expand_cached(self, environment)


def read(text: str, parameters: Mapping[str, str]) -> CheckedManifest:
    """Read and check a manifest. Raises `Invalid` with the field's path."""
    values = tuple(sorted(parameters.items()))
    return _read(text, values) if len(text) > MAX_CACHED_CHARACTERS else _read_cached(text, values)


def _read(text: str, values: tuple[tuple[str, str], ...]) -> CheckedManifest:
    parameters = dict(values)
    try:
        manifest = _without_nulls(texts.read(text))
        checking.check(manifest, parameters=parameters)
    except ManifestError as error:
        raise _invalid(error) from error
    if manifest.get("kind") != "Workflow":
        raise Invalid(f"is a {manifest.get('kind')}, not a Workflow", field="spec.manifest.kind")
    _check_name(manifest.get("metadata") or {})
    declared = ((manifest["spec"].get("arguments") or {}).get("parameters")) or []
    names = [p["name"] for p in declared]
    for name in parameters:
        if name not in names:
            raise Invalid(
                f"the workflow has no parameter {name}; it has: {', '.join(names) or 'none'}",
                field=f"spec.parameters[{name}]",
            )
    found = {p["name"]: parameters.get(p["name"], _value(p)) for p in declared}
    values = tuple((name, value) for name, value in found.items() if value is not None)
    return CheckedManifest(json.dumps(manifest), values)


def _check_name(metadata: Json) -> None:
    """Refuse names that Kubernetes would refuse: the run's id begins with them."""
    for key, form in _NAME_FORMS.items():
        name = metadata.get(key)
        if name and not form.fullmatch(name):
            raise Invalid(
                f"{name[:100]!r} is not a Kubernetes name: only lower-case letters, digits, '-' and '.' are allowed",
                field=f"spec.manifest.metadata.{key}",
                reason="MANIFEST_INVALID",
            )


def _expand(checked: CheckedManifest, environment: StepEnvironment) -> ExpandedWorkflow:
    try:
        return expand(checked.manifest, checked.parameters, environment)
    except ManifestError as error:
        raise _invalid(error) from error
    except Invalid as error:
        raise Invalid(
            error.message, field=f"spec.manifest.{error.field}", reason="MANIFEST_INVALID"
        ) from error


_read_cached = lru_cache(CACHED_MANIFESTS)(_read)
_expand_cached = lru_cache(CACHED_MANIFESTS)(_expand)


def _invalid(error: ManifestError) -> Invalid:
    path = f"spec.manifest.{error.path}" if error.path else "spec.manifest"
    return Invalid(error.message, field=path, reason="MANIFEST_INVALID")


def _without_nulls(value: Any) -> Any:
    """The manifest as Argo reads it: a field that is null is absent. Items of loops are kept as they are."""
    if isinstance(value, dict):
        return {
            key: each if key == "withItems" else _without_nulls(each)
            for key, each in value.items()
            if each is not None
        }
    return [_without_nulls(each) for each in value] if isinstance(value, list) else value


def _value(parameter: Json) -> str | None:
    """The value of a workflow's parameter; None where only Argo has it, as it reads a ConfigMap."""
    default = None if parameter.get("valueFrom") else parameter.get("default")
    return _text(parameter.get("value", default))


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)
