"""How one key differs from another: field by field, most telling first, and in words."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from periplus_common import digest

_SHOWN = 200  # characters of a value
_TOLD = 3  # changes that a sentence tells
_ABSENT = object()


@dataclass(frozen=True, slots=True)
class Change:
    """A field that differs; None where a key has no such field."""

    field: str
    old: str | None
    new: str | None

    def in_words(self) -> str:
        """Such as "c was 0.1 and is 0.5"."""
        name = self.field
        for prefix in ("inputs.parameters.", "inputs.artifacts."):
            name = name.removeprefix(prefix)
        if self.old is None:
            return f"{name} is new ({self.new})"
        if self.new is None:
            return f"{name} is gone (was {self.old})"
        if self.field.startswith(("code.", "inputs.artifacts.")):
            return f"{name} has other contents"
        return f"{name} was {self.old} and is {self.new}"


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Change]:
    """Each field of two keys that differs, most telling first."""
    before, after = dict(_fields(old)), dict(_fields(new))
    found = [
        _change(name, before.get(name, _ABSENT), after.get(name, _ABSENT))
        for name in before.keys() | after.keys()
        if not _same(before.get(name, _ABSENT), after.get(name, _ABSENT))
    ]
    if not found and digest.canonical(old) != digest.canonical(new):
        # Paths are for people, and two shapes can share one: then the whole is what differs.
        return [Change("key", _short(json.dumps(old)), _short(json.dumps(new)))]
    return sorted(found, key=lambda change: (_rank(change.field), _natural(change.field)))


def _same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and repr(one) == repr(other)


def _change(field: str, old: Any, new: Any) -> Change:
    """Values of other types that read alike are shown as JSON, or nobody would see the difference."""
    alike = _text(old) == _text(new)
    before, after = (
        None if value is _ABSENT else _short(json.dumps(value) if alike else _text(value))
        for value in (old, new)
    )
    return Change(field, before, after)


def sentence(found: Sequence[Change]) -> str:
    """The first changes in words."""
    told = "; ".join(change.in_words() for change in found[:_TOLD])
    rest = len(found) - _TOLD
    return told if rest <= 0 else f"{told}; and {rest} more"


def _fields(key: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The key's leaves as paths and values, as people know them: the template's members stand at the top."""
    for name, value in key.items():
        if name == "template":
            for member, inner in value.items():
                yield from _leaves(member, inner)
        elif name in ("parameters", "artifacts"):
            yield from _leaves(f"inputs.{name}", value)
        else:
            yield from _leaves(name, value)


def _leaves(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for name, inner in value.items():
            yield from _leaves(f"{path}.{name}", inner)
    elif isinstance(value, list) and value:
        names = [item["name"] for item in value if isinstance(item, Mapping) and _is_named(item)]
        if len(names) == len(value) == len(set(names)):
            for name, item in zip(names, value, strict=True):
                yield from _named(f"{path}.{name}", item)
            yield f"{path}.order", ", ".join(names)
        else:
            for index, item in enumerate(value):
                yield from _leaves(f"{path}[{index}]", item)
    else:
        yield path, value


def _is_named(item: Mapping[str, Any]) -> bool:
    return isinstance(item.get("name"), str)


def _named(path: str, item: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """An element that has a name, such as a variable of the environment: a lone value is its own leaf."""
    rest = {name: value for name, value in item.items() if name != "name"}
    if set(rest) == {"value"}:
        yield from _leaves(path, rest["value"])
    else:
        yield from _leaves(path, rest)


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}… ({len(text)} characters)"


def _rank(field: str) -> int:
    if field.startswith("code."):
        return 0
    if field.endswith((".image", "image")):
        return 1
    for rank, prefix in enumerate(("inputs.parameters", "inputs.artifacts", "environment"), start=2):
        if field.startswith(prefix):
            return rank
    return 5


def _natural(field: str) -> tuple[tuple[bool, int, str], ...]:
    """So that args[10] comes after args[9]."""
    pieces = field.replace("]", "").split("[")
    return tuple((piece.isdecimal(), int(piece) if piece.isdecimal() else 0, piece) for piece in pieces)
