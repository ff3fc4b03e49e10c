"""How one key differs from another: field by field, the most informative first, and as a sentence."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from periplus_common import digest

MAX_VALUE_CHARACTERS = 200
MAX_CHANGES_IN_SENTENCE = 3
_ABSENT = object()


@dataclass(frozen=True, slots=True)
class Change:
    """A field that differs, with its value in each key as text; None if the key does not have it."""

    field: str
    old: str | None
    new: str | None

    def sentence(self) -> str:
        """Such as "c was 0.1 and is 0.5"."""
        name = self.field
        for prefix in ("inputs.parameters.", "inputs.artifacts."):
            name = name.removeprefix(prefix)
        if self.old is None:
            return f"{name} is new ({self.new})"
        if self.new is None:
            return f"{name} is gone (was {self.old})"
        if self.field.startswith("discovered."):
            name = name.removeprefix("discovered.")
            name = (
                f"the import of {name[:-1]}, which it uses,"
                if name.endswith(":")
                else f"{name}, which it uses,"
            )
        if self.field.startswith(("code.", "config.", "discovered.", "inputs.artifacts.")):
            return f"{name} has other contents"
        return f"{name} was {self.old} and is {self.new}"


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Change]:
    """Each field that differs between two keys, the most informative first."""
    before, after = dict(_fields(old)), dict(_fields(new))
    found = [
        _change(name, before.get(name, _ABSENT), after.get(name, _ABSENT))
        for name in before.keys() | after.keys()
        if not _same(before.get(name, _ABSENT), after.get(name, _ABSENT))
    ]
    if not found and digest.canonical(old) != digest.canonical(new):
        # Two structures can have the same paths; then the whole key is the field that differs.
        return [Change("key", _short(json.dumps(old)), _short(json.dumps(new)))]
    return sorted(found, key=lambda change: (_rank(change.field), _natural(change.field)))


def sentence(found: Sequence[Change]) -> str:
    """The first changes as a sentence."""
    text = "; ".join(change.sentence() for change in found[:MAX_CHANGES_IN_SENTENCE])
    more = len(found) - MAX_CHANGES_IN_SENTENCE
    return text if more <= 0 else f"{text}; and {more} more"


def _same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and repr(one) == repr(other)


def _change(field: str, old: Any, new: Any) -> Change:
    """Values of different types with the same text are given as JSON, so that the difference is visible."""
    as_json = _text(old) == _text(new)
    before, after = (
        None if value is _ABSENT else _short(json.dumps(value) if as_json else _text(value))
        for value in (old, new)
    )
    return Change(field, before, after)


def _fields(key: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The key's values with their paths. The template's members have paths of their own, without "template."."""
    for name, value in key.items():
        if name == "template":
            for member, inner in value.items():
                yield from _values(member, inner)
        elif name in ("parameters", "artifacts"):
            yield from _values(f"inputs.{name}", value)
        else:
            yield from _values(name, value)


def _values(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for name, inner in value.items():
            yield from _values(f"{path}.{name}", inner)
    elif isinstance(value, list) and value:
        names = [item["name"] for item in value if isinstance(item, Mapping) and _is_named(item)]
        if len(names) == len(value) == len(set(names)):
            for name, item in zip(names, value, strict=True):
                yield from _named_element(f"{path}.{name}", item)
            yield f"{path}.order", ", ".join(names)
        else:
            for index, item in enumerate(value):
                yield from _values(f"{path}[{index}]", item)
    else:
        yield path, value


def _is_named(item: Mapping[str, Any]) -> bool:
    return isinstance(item.get("name"), str)


def _named_element(path: str, item: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """An element with a name, such as an environment variable. One that has only a value is that value."""
    members = {name: value for name, value in item.items() if name != "name"}
    if set(members) == {"value"}:
        yield from _values(path, members["value"])
    else:
        yield from _values(path, members)


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _short(text: str) -> str:
    return (
        text
        if len(text) <= MAX_VALUE_CHARACTERS
        else f"{text[:MAX_VALUE_CHARACTERS]}… ({len(text)} characters)"
    )


def _rank(field: str) -> int:
    if field.startswith(("code.", "discovered.")):
        return 0
    if field.endswith((".image", "image")):
        return 1
    for rank, prefix in enumerate(
        ("inputs.parameters", "inputs.artifacts", "config.", "environment"), start=2
    ):
        if field.startswith(prefix):
            return rank
    return 6


def _natural(field: str) -> tuple[tuple[bool, int, str], ...]:
    """A sort key by which args[10] comes after args[9]."""
    parts = field.replace("]", "").split("[")
    return tuple((part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts)
