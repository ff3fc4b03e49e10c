"""What a manifest says: read, checked, and followed to its steps; the same text again costs next to nothing."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from periplus_common.errors import Invalid
from periplus_dispatcher.calls import Walk
from periplus_dispatcher.walk import walk
from periplus_manifest import check as checking
from periplus_manifest import read as texts
from periplus_manifest.errors import ManifestError

Json = dict[str, Any]

_NAMES = {
    "name": re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?"),
    "generateName": re.compile(r"[a-z0-9][-a-z0-9.]*"),
}
KEPT = 16  # texts, and as many walks
LARGEST = 64 << 10  # characters; of larger ones nothing is kept, so that all that is kept stays small


@dataclass(frozen=True)
class Reading:
    """A checked manifest, as JSON, and the values of its parameters. Nobody can change what is kept of it."""

    text: str
    values: tuple[tuple[str, str], ...]

    @property
    def manifest(self) -> Json:
        """The manifest, a copy of the caller's own."""
        found: Json = json.loads(self.text)
        return found

    @property
    def parameters(self) -> dict[str, str]:
        """The values of the workflow's parameters."""
        return dict(self.values)

    def walk(self, environment: str) -> Walk:
        """Follow it to its steps. Raises `Invalid`, with the field's path."""
        # An expression may tell the time or a random number, which differ each time that they are asked.
        expressive = "{{=" in self.text or any("{{=" in value for _, value in self.values)
        if expressive or len(self.text) > LARGEST:
            return _walk(self, environment)
        return _walked(self, environment)


def read(text: str, parameters: Mapping[str, str]) -> Reading:
    """Read and check a manifest. Raises `Invalid`, with the field's path."""
    given = tuple(sorted(parameters.items()))
    return _read(text, given) if len(text) > LARGEST else _known(text, given)


def _read(text: str, given: tuple[tuple[str, str], ...]) -> Reading:
    parameters = dict(given)
    try:
        manifest = _without_nulls(texts.read(text))
        checking.check(manifest, parameters=parameters)
    except ManifestError as error:
        raise _refused(error) from error
    if manifest.get("kind") != "Workflow":
        raise Invalid(f"is a {manifest.get('kind')}, not a Workflow", field="spec.manifest.kind")
    _check_name(manifest.get("metadata") or {})
    declared = ((manifest["spec"].get("arguments") or {}).get("parameters")) or []
    names = [p["name"] for p in declared]
    for name in parameters:
        if name not in names:
            known = ", ".join(names) or "none"
            raise Invalid(
                f"the workflow has no parameter {name}; it has: {known}", field=f"spec.parameters[{name}]"
            )
    values = {p["name"]: parameters.get(p["name"], _text(p.get("value", p.get("default")))) for p in declared}
    given = tuple((name, value) for name, value in values.items() if value is not None)
    return Reading(json.dumps(manifest), given)


def _check_name(metadata: Json) -> None:
    """Refuse what Kubernetes would refuse: the run's name begins with it."""
    for key, form in _NAMES.items():
        name = metadata.get(key)
        if name and not form.fullmatch(name):
            raise Invalid(
                f"{name[:100]!r} is no name for Kubernetes: lower-case letters, digits, '-' and '.' are",
                field=f"spec.manifest.metadata.{key}",
                reason="MANIFEST_INVALID",
            )


def _walk(reading: Reading, environment: str) -> Walk:
    try:
        return walk(reading.manifest, reading.parameters, environment)
    except ManifestError as error:
        raise _refused(error) from error
    except Invalid as error:
        raise Invalid(
            error.message, field=f"spec.manifest.{error.field}", reason="MANIFEST_INVALID"
        ) from error


_known = lru_cache(KEPT)(_read)
_walked = lru_cache(KEPT)(_walk)


def _refused(error: ManifestError) -> Invalid:
    path = f"spec.manifest.{error.path}" if error.path else "spec.manifest"
    return Invalid(error.message, field=path, reason="MANIFEST_INVALID")


def _without_nulls(value: Any) -> Any:
    """A manifest as Argo reads it: a field that is null is not there. Items of loops stay as they are."""
    if isinstance(value, dict):
        return {
            key: each if key == "withItems" else _without_nulls(each)
            for key, each in value.items()
            if each is not None
        }
    return [_without_nulls(each) for each in value] if isinstance(value, list) else value


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)
