"""What in a manifest does not do here what it does on a cluster, by the path of its field."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from periplus_local.argo.fields import IDLE, REFUSED, TABLES


@dataclass(frozen=True)
class Finding:
    """A field that does not do here what it does on a cluster."""

    path: str
    field: str
    refused: str | None


def findings(kind: str, value: Any, path: str = "") -> Iterator[Finding]:
    """The fields of an object that are refused (with the reason) or have no effect here."""
    if not isinstance(value, dict):
        return
    table = TABLES[kind]
    for field, held in value.items():
        here = f"{path}.{field}" if path else field
        if field in REFUSED.get(kind, {}):
            if held not in (None, {}, [], False):
                yield Finding(here, field, REFUSED[kind][field])
        elif field in IDLE.get(kind, frozenset()):
            if held not in (None, {}, [], ""):
                yield Finding(here, field, None)
        elif field not in table:
            yield Finding(here, field, "unknown field")
        elif held is not None:
            yield from _within(table[field], held, here)


def _within(kind: str | None, held: Any, path: str) -> Iterator[Finding]:
    if kind is None:
        return
    if kind == "steps":
        for outer, group in enumerate(held if isinstance(held, list) else ()):
            listed = group.get("steps", []) if isinstance(group, dict) else group
            for inner, step in enumerate(listed if isinstance(listed, list) else ()):
                yield from findings("step", step, f"{path}[{outer}][{inner}]")
    elif kind == "hooks":
        for name, hook in held.items() if isinstance(held, dict) else ():
            yield from findings("hook", hook, f"{path}.{name}")
    elif kind.endswith("[]"):
        for index, item in enumerate(held if isinstance(held, list) else ()):
            yield from findings(kind[:-2], item, f"{path}[{index}]")
    else:
        yield from findings(kind, held, path)
