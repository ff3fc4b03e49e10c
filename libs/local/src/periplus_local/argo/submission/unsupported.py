"""The fields of a manifest that do not do here what they do on a cluster, by path."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from periplus_local.argo.submission.fields import IGNORED, REFUSED, SUPPORTED


@dataclass(frozen=True)
class UnsupportedField:
    """A field that is refused for a reason, or ignored when `refusal` is None."""

    path: str
    field: str
    refusal: str | None


def unsupported_fields(kind: str, value: Any, path: str = "") -> Iterator[UnsupportedField]:
    """The refused and the ignored fields of an object of a kind (a key of fields.SUPPORTED), and of its parts."""
    if not isinstance(value, dict):
        return
    supported = SUPPORTED[kind]
    for field, content in value.items():
        field_path = f"{path}.{field}" if path else field
        if field in REFUSED.get(kind, {}):
            if content not in (None, {}, [], False):
                yield UnsupportedField(field_path, field, REFUSED[kind][field])
        elif field in IGNORED.get(kind, frozenset()):
            if content not in (None, {}, [], ""):
                yield UnsupportedField(field_path, field, None)
        elif field not in supported:
            yield UnsupportedField(field_path, field, "unknown field")
        elif content is not None:
            yield from _within(supported[field], content, field_path)


def _within(kind: str | None, content: Any, path: str) -> Iterator[UnsupportedField]:
    if kind is None:
        return
    if kind == "steps":
        for outer, group in enumerate(content if isinstance(content, list) else ()):
            steps = group.get("steps", []) if isinstance(group, dict) else group
            for inner, step in enumerate(steps if isinstance(steps, list) else ()):
                yield from unsupported_fields("step", step, f"{path}[{outer}][{inner}]")
    elif kind == "hooks":
        for name, hook in content.items() if isinstance(content, dict) else ():
            yield from unsupported_fields("hook", hook, f"{path}.{name}")
    elif kind.endswith("[]"):
        for index, item in enumerate(content if isinstance(content, list) else ()):
            yield from unsupported_fields(kind[:-2], item, f"{path}[{index}]")
    else:
        yield from unsupported_fields(kind, content, path)
