"""Read and check a manifest. The most recent texts and what they expand to are kept, for requests that repeat them."""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache

from periplus_common.errors import Invalid
from periplus_dispatcher.domain import Json
from periplus_dispatcher.manifest.calls import ExpandedWorkflow
from periplus_dispatcher.manifest.documents import invalid, read_documents
from periplus_dispatcher.manifest.expand import expand
from periplus_dispatcher.manifest.inline import Place
from periplus_dispatcher.manifest.library import LibraryRef
from periplus_dispatcher.manifest.uncacheable import StepEnvironment
from periplus_manifest import check as checking
from periplus_manifest.bounds import MAX_MANIFEST_BYTES
from periplus_manifest.errors import BoundError, ManifestError

CACHED_MANIFESTS = 16
MAX_CACHED_CHARACTERS = 64 << 10
"""Longer manifests are not kept, so that the memory of the kept ones stays small."""

_NAME_FORMS = {
    "name": re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?"),
    "generateName": re.compile(r"[a-z0-9][-a-z0-9.]*"),
}
_TEMPLATE_PATH = re.compile(r"spec\.manifest\.spec\.templates\[(\d+)\]")


@dataclass(frozen=True)
class CheckedManifest:
    """A checked manifest as JSON text, and the values of its parameters. Immutable, as requests share it.

    `library` are the library objects that came with it, as JSON. Once library templates are part of it, `merged` is the
    object of its workflowTemplateRef, and `places` are those of its last templates, which were copied into it.
    """

    text: str
    values: tuple[tuple[str, str], ...]
    library: tuple[tuple[LibraryRef, str], ...] = ()
    merged: LibraryRef | None = None
    places: tuple[Place, ...] = ()

    @property
    def manifest(self) -> Json:
        """The manifest, a new copy at each call."""
        found: Json = json.loads(self.text)
        return found

    @property
    def parameters(self) -> dict[str, str]:
        """The values of the workflow's parameters."""
        return dict(self.values)

    @property
    def refers_to_library(self) -> bool:
        """Whether it may refer to templates of other objects."""
        return '"templateRef"' in self.text or '"workflowTemplateRef"' in self.text

    def expand(self, environment: StepEnvironment) -> ExpandedWorkflow:
        """Expand it to its calls. Raises `Invalid` with the field's path."""
        # An expression can use the time or a random number, which differ at each evaluation.
        has_expression = "{{=" in self.text or any("{{=" in value for _, value in self.values)
        if has_expression or len(self.text) > MAX_CACHED_CHARACTERS:
            return _expand(self, environment)
        return _expand_cached(self, environment)

    @contextmanager
    def located(self) -> Iterator[None]:
        """Let errors about what was copied name the user's field that led to it, and say where it was copied from."""
        try:
            yield
        except Invalid as error:
            if self.merged is None and not self.places:
                raise
            copied_from = origin = ""
            if found := _TEMPLATE_PATH.match(error.field):
                index = int(found[1]) - len(self.manifest["spec"]["templates"]) + len(self.places)
                if 0 <= index < len(self.places):
                    place = self.places[index]
                    origin, copied_from = place.origin, place.copied_from + error.field[found.end() :]
            if not origin and self.merged is not None:
                origin = "spec.workflowTemplateRef"
                copied_from = f"{self.merged}: {error.field.removeprefix('spec.manifest.')}"
            if not origin:
                raise
            raise Invalid(
                f"{copied_from}: {error.message}",
                field=f"spec.manifest.{origin}",
                reason=error.reason,
                fix=error.fix,
            ) from error


def read(text: str, parameters: Mapping[str, str]) -> CheckedManifest:
    """Read and check a manifest. Raises `Invalid` with the field's path."""
    values = tuple(sorted(parameters.items()))
    return _read(text, values) if len(text) > MAX_CACHED_CHARACTERS else _read_cached(text, values)


def _read(text: str, values: tuple[tuple[str, str], ...]) -> CheckedManifest:
    parameters = dict(values)
    documents = read_documents(text, parameters)
    manifest = documents.workflow
    _check_name(manifest.get("metadata") or {})
    library = tuple((ref, json.dumps(each)) for ref, each in documents.library.items())
    if "workflowTemplateRef" in manifest["spec"]:
        # Its parameters are also those of the template, which is read later.
        return CheckedManifest(json.dumps(manifest), values, library)
    return CheckedManifest(json.dumps(manifest), _parameters(manifest, parameters), library)


def with_library(
    checked: CheckedManifest,
    manifest: Json,
    parameters: Mapping[str, str],
    merged: LibraryRef | None,
    places: tuple[Place, ...],
) -> CheckedManifest:
    """The manifest once library templates are part of it, checked anew. Raises `Invalid`, `BoundError` if it is too large."""
    text = json.dumps(manifest)
    size = len(json.dumps(manifest, ensure_ascii=False, separators=(",", ":")).encode())
    if size > MAX_MANIFEST_BYTES:
        raise BoundError(
            "",
            f"with its library templates the workflow has {size} bytes; at most {MAX_MANIFEST_BYTES} are read",
        )
    found = replace(checked, text=text, merged=merged, places=places)
    with found.located():
        try:
            checking.check(manifest, parameters=parameters)
        except ManifestError as error:
            raise invalid(error) from error
    return replace(found, values=_parameters(manifest, parameters))


def _parameters(manifest: Json, parameters: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """The values of the workflow's parameters. Raises `Invalid` for one that it does not have."""
    declared = ((manifest["spec"].get("arguments") or {}).get("parameters")) or []
    names = [p["name"] for p in declared]
    for name in parameters:
        if name not in names:
            raise Invalid(
                f"the workflow has no parameter {name}; it has: {', '.join(names) or 'none'}",
                field=f"spec.parameters[{name}]",
            )
    found = {p["name"]: parameters.get(p["name"], _value(p)) for p in declared}
    return tuple((name, value) for name, value in found.items() if value is not None)


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
    with errors_in_manifest():
        return expand(checked.manifest, checked.parameters, environment)


@contextmanager
def errors_in_manifest() -> Iterator[None]:
    """Let errors about a manifest name the field of the request."""
    try:
        yield
    except ManifestError as error:
        raise invalid(error) from error
    except Invalid as error:
        raise Invalid(
            error.message, field=f"spec.manifest.{error.field}", reason="MANIFEST_INVALID"
        ) from error


_read_cached = lru_cache(CACHED_MANIFESTS)(_read)
_expand_cached = lru_cache(CACHED_MANIFESTS)(_expand)


def _value(parameter: Json) -> str | None:
    """The value of a workflow's parameter; None where only Argo has it, as it reads a ConfigMap."""
    default = None if parameter.get("valueFrom") else parameter.get("default")
    return _text(parameter.get("value", default))


def _text(value: object) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)
