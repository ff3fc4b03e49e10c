"""A step's cache policy, from the annotations of its template and of its workflow."""

import json
from datetime import timedelta

from periplus_common.errors import Invalid
from periplus_dispatcher.domain import Json
from periplus_manifest.duration import parse_duration
from periplus_manifest.errors import ManifestError
from periplus_model.steps import CacheMode, CachePolicy

ANNOTATION_PREFIX = "periplus.dev/"
MAX_TTL = timedelta(days=36_525)
MAX_IGNORED = 100
"""Names that one annotation may list."""


def read_policy(annotations: Json, path: str) -> CachePolicy:
    """The cache policy. `path` is the field path of the annotations. Raises `Invalid` with the field's path."""

    def value(name: str) -> str:
        return str(annotations.get(ANNOTATION_PREFIX + name, "")).strip()

    def field(name: str) -> str:
        return f"{path}['{ANNOTATION_PREFIX}{name}']"

    try:
        mode = CacheMode.from_label(value("cache") or "readwrite")
    except ValueError as error:
        raise Invalid(str(error), field=field("cache")) from error
    for name in ("side-effects", "stop-on-divergence"):
        if value(name) not in ("", "true", "false"):
            raise Invalid(f"{value(name)!r} is neither true nor false", field=field(name))
    return CachePolicy(
        mode=mode,
        ttl=_time_to_live(value("ttl"), field("ttl")) if value("ttl") else None,
        ignore_inputs=read_names(annotations, "ignore-inputs", path),
        side_effects=value("side-effects") == "true",
        stop_on_divergence=value("stop-on-divergence") == "true",
    )


def read_names(annotations: Json, name: str, path: str) -> frozenset[str]:
    """The names that an annotation lists, separated by commas. Raises `Invalid` with the field's path."""
    listed = str(annotations.get(ANNOTATION_PREFIX + name, "")).split(",")
    names = frozenset(each.strip() for each in listed if each.strip())
    if len(names) > MAX_IGNORED:
        raise Invalid(f"has more than {MAX_IGNORED} names", field=f"{path}['{ANNOTATION_PREFIX}{name}']")
    return names


def read_on_exit(annotations: Json, path: str) -> str:
    """Whether an exit handler runs always, or if a step runs: "always", "if-run", or empty if no annotation says so.

    `path` is the field path of the annotations. Raises `Invalid`.
    """
    value = str(annotations.get(ANNOTATION_PREFIX + "on-exit", "")).strip()
    if value not in ("", "always", "if-run"):
        raise Invalid(
            f"{value[:40]!r} is neither always nor if-run", field=f"{path}['{ANNOTATION_PREFIX}on-exit']"
        )
    return value


def read_code(annotations: Json, path: str) -> Json | None:
    """Digests of the files that the step's code consists of, by file name; None if the annotation is absent."""
    text = annotations.get(ANNOTATION_PREFIX + "code")
    if not text:
        return None
    field = f"{path}['{ANNOTATION_PREFIX}code']"
    try:
        code = json.loads(text)
    except ValueError as error:
        raise Invalid("is not JSON", field=field) from error
    if not isinstance(code, dict) or not all(isinstance(digest, str) for digest in code.values()):
        raise Invalid("is not a JSON object of digests by file name", field=field)
    return code


def _time_to_live(text: str, field: str) -> timedelta:
    """A duration like 1h30m, 7d or 90s."""
    try:
        ttl = parse_duration(text, days=True)
    except ManifestError as error:
        raise Invalid(error.message, field=field) from None
    if ttl < timedelta():
        raise Invalid(f"{text[:40]!r} is negative", field=field)
    if ttl > MAX_TTL:
        raise Invalid(f"{text[:40]!r} is more than a century: leave it out for no limit", field=field)
    return ttl
