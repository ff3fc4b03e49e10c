"""Which objects a manifest may name: those of its project, and those that a setting shares with all projects.

Keys belong to projects by how they begin. Argo writes outputs below `projects/<project>/`, the snapshotter writes code below
`code/<project>/`. Where a tag of a key is known only during the run, what stands before it must decide; or, where a setting
shares all keys, whoever runs the manifest.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from periplus_common.errors import Invalid
from periplus_common.object_key import OF_PROJECTS, PROJECT_LABEL, malformed_reason, own_prefixes
from periplus_dispatcher.domain import Json
from periplus_dispatcher.manifest.known_values import DATA, KnownValues, Place
from periplus_manifest import tags

OTHERS = "*"
"""In a list of shared keys: every object that does not belong to a project."""
_TAG = "tag"


@dataclass(frozen=True)
class Location:
    """An `s3` of a manifest, with the path of its field. `is_written`: an output goes there."""

    path: str
    place: Place
    s3: Json
    is_written: bool


@dataclass(frozen=True)
class SubPath:
    """The `subPath` of an artifact, with the path of its field."""

    path: str
    place: Place
    text: str


@dataclass(frozen=True)
class SharedKeys:
    """What every project may read, and what every project may read and write, of the default repository `bucket`.

    Each is a key, a prefix that ends in a slash, `s3://<bucket>/…` or `s3://<bucket>@<endpoint>/…` of another repository, or
    `*`.
    """

    endpoint: str = ""
    bucket: str = ""
    readable: tuple[str, ...] = ()
    writable: tuple[str, ...] = ()


def check_locations(manifest: Json, parameters: Mapping[str, str], project: str, shared: SharedKeys) -> None:
    """Raise `Invalid` with the field's path for an object that the project's manifests may not name."""
    _check_labels(manifest["spec"].get("workflowMetadata") or {})
    constants = {f"workflow.parameters.{name}": value for name, value in parameters.items()}
    constants[f"workflow.labels.{PROJECT_LABEL}"] = project
    values = KnownValues(manifest["spec"], constants)
    for found in _locations(manifest["spec"], "spec", Place(), is_written=False):
        written = (
            [str(found.s3.get(field) or "") for field in ("key", "bucket", "endpoint")]
            if isinstance(found, Location)
            else [found.text]
        )
        texts = tuple(tags.substitute(text, constants.get, strict=False) for text in written)
        try:
            _check(found, texts, project, shared)
        except Invalid:
            known = values.of(texts, found.place) if "{{" in "".join(texts) else None
            if known is None:
                raise
            for each in sorted(known):
                _check(found, each, project, shared)


def _check(found: Location | SubPath, texts: tuple[str, ...], project: str, shared: SharedKeys) -> None:
    if isinstance(found, Location):
        _check_location(found, texts, project, shared)
    else:
        _check_sub_path(found.path, texts[0], may_be_unknown=OTHERS in (*shared.readable, *shared.writable))


def _check_location(location: Location, texts: tuple[str, ...], project: str, shared: SharedKeys) -> None:
    key, bucket, endpoint = texts
    if not key and location.is_written:
        return  # Argo makes the key
    if reason := malformed_reason(_without_tags(key)):
        raise _invalid(location, f"is no key of an object: it {reason}", "KEY_MALFORMED")
    is_default = bucket in ("", shared.bucket) and endpoint in ("", shared.endpoint)
    repository = f"s3://{bucket}@{endpoint}/" if endpoint else f"s3://{bucket}/"
    what = key if is_default else repository + key
    own = own_prefixes(project)[: 1 if location.is_written else 2]
    if is_default and any(_is_below(key, prefix) for prefix in own):
        return
    listed = shared.writable if location.is_written else (*shared.readable, *shared.writable)
    if not _may_be_of_a_project(key) and (
        OTHERS in listed or any(_is_below(what, prefix) for prefix in listed)
    ):
        return
    if OTHERS in listed and _may_become_allowed(key, own if is_default else ()):
        return
    setting = "DISPATCHER_WRITABLE_KEYS" if location.is_written else "DISPATCHER_READABLE_KEYS"
    known = " as far as it is known before the run" if "{{" in what else ""
    raise _invalid(
        location,
        f"{what[:200]!r} does not belong to the project {project}{known}",
        "KEY_FOREIGN",
        fix=f"begin it with projects/{project}/, or keep it elsewhere and list where in {setting}",
    )


def _check_sub_path(path: str, text: str, *, may_be_unknown: bool) -> None:
    """Refuse a `subPath` that leaves the artifact: Argo joins it with the key as paths are joined."""
    if "{{" in text and not may_be_unknown:
        reason = "is known only during the run, and could leave the artifact"
    elif not (reason := malformed_reason(_without_tags(text))):
        return
    raise Invalid(
        f"{text[:200]!r} {reason}",
        field=f"spec.manifest.{path}",
        reason="KEY_MALFORMED",
        fix="name a part of the artifact as it is, such as data/train.csv, or by tags whose values the manifest has",
    )


def _is_below(key: str, listed: str) -> bool:
    """Whether a key is a listed one or begins with a listed prefix, whatever its tags become."""
    known, is_whole = _known(key)
    return known.startswith(listed) if listed.endswith("/") else is_whole and known == listed


def _may_be_of_a_project(key: str) -> bool:
    known, is_whole = _known(key)
    if is_whole:
        return f"{known}/".startswith(OF_PROJECTS)
    return any(known.startswith(prefix) or prefix.startswith(known) for prefix in OF_PROJECTS)


def _may_become_allowed(key: str, own: tuple[str, ...]) -> bool:
    """Whether a key with tags may become one of the project's own, or of no project."""
    known, is_whole = _known(key)
    is_open = not known.startswith(OF_PROJECTS) or any(
        known.startswith(prefix) or prefix.startswith(known) for prefix in own
    )
    return not is_whole and is_open


def _known(key: str) -> tuple[str, bool]:
    """What stands before the first tag, and whether that is all."""
    known, tag, _ = key.partition("{{")
    return known, not tag


def _without_tags(key: str) -> str:
    for tag in reversed(tags.spans(key)):
        key = key[: tag.start] + _TAG + key[tag.end :]
    return key


def _locations(value: Any, path: str, place: Place, *, is_written: bool) -> Iterator[Location | SubPath]:
    if isinstance(value, list):
        if path.endswith(".artifacts"):
            yield from (
                SubPath(f"{path}[{index}].subPath", place, str(each["subPath"]))
                for index, each in enumerate(value)
                if each.get("subPath")
            )
        for index, each in enumerate(value):
            inner = Place(each) if path == "spec.templates" else place
            yield from _locations(each, f"{path}[{index}]", inner, is_written=is_written)
    elif isinstance(value, dict):
        for name, each in value.items():
            if name == "s3" and isinstance(each, dict):
                yield Location(f"{path}.s3", place, each, is_written)
            elif name not in DATA:
                written = name in ("outputs", "archiveLocation") or (is_written and name != "inputs")
                yield from _locations(each, f"{path}.{name}", place.inside(name, value), is_written=written)


def _check_labels(added: Json) -> None:
    """Refuse another project's label: the keys of outputs are made of it."""
    for field in ("labels", "labelsFrom"):
        for name in added.get(field) or ():
            if str(name).startswith("periplus.dev/"):
                raise Invalid(
                    "is a label that only the dispatcher sets",
                    field=f"spec.manifest.spec.workflowMetadata.{field}['{name}']",
                    reason="LABEL_RESERVED",
                    fix="leave it out",
                )


def _invalid(location: Location, message: str, reason: str, fix: str = "") -> Invalid:
    return Invalid(message, field=f"spec.manifest.{location.path}.key", reason=reason, fix=fix)
