"""The loops of a step or task: withItems, withParam and withSequence, their items and the names of their nodes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from . import tags
from .bounds import MAX_ITEMS, MAX_NESTING
from .errors import BoundError, ManifestError
from .gotext import WrittenNumber, json_text, kind, unescaped
from .measure import nesting

FIELDS = ("withItems", "withParam", "withSequence")
_MAX_WIDTH = 1_000
_MAX_QUOTED_CHARACTERS = 400

_VERB = re.compile(r"%(?P<flags>[-+# 0]*)(?P<width>\d*)(?:\.(?P<precision>\d*))?(?P<verb>.)", re.DOTALL)


def items(
    call: Mapping[str, Any], lookup: tags.Lookup | None = None, env: Mapping[str, Any] | None = None
) -> list[Any] | None:
    """Return the items of a step's or task's loop; None when it has none.

    Tags in the loop's fields are replaced with `lookup` and `env`, as `tags.substitute` does; without
    `lookup` the fields are taken as they are. Raises ManifestError with the field as path.
    """
    present = [field for field in FIELDS if call.get(field) not in (None, "", [])]
    if not present:
        return None
    if len(present) > 1:
        raise ManifestError(present[1], f"only one of {', '.join(FIELDS)} can be specified")
    field = present[0]
    value = call[field]
    try:
        if lookup is not None:
            value = tags.substitute_all(value, lookup, env)
        if field == "withItems":
            return _from_list(value)
        return _from_json(value) if field == "withParam" else _sequence(value)
    except ManifestError as error:
        raise error.under(field) from None


def _from_list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ManifestError("", f"must be a list, not {kind(value)}")
    return _within_limit(value)


def _from_json(text: Any) -> list[Any]:
    if not isinstance(text, str):
        raise ManifestError("", f"must be a text that holds a JSON list, not {kind(text)}")
    try:
        value = json.loads(
            text, parse_float=WrittenNumber, parse_int=_integer, parse_constant=_refuse_constant
        )
    except (ValueError, RecursionError) as error:
        raise _not_a_list(text, str(error)) from None
    if value is None:
        return []
    if not isinstance(value, list):
        raise _not_a_list(text, f"it is {kind(value)}")
    if nesting(value) > MAX_NESTING:
        raise BoundError("", f"nested deeper than {MAX_NESTING}")
    return _within_limit(value)


def _integer(text: str) -> int | float:
    return WrittenNumber(text) if text == "-0" else int(text)


def _not_a_list(text: str, why: str) -> ManifestError:
    quoted = text.strip()
    quoted = quoted if len(quoted) <= _MAX_QUOTED_CHARACTERS else quoted[:_MAX_QUOTED_CHARACTERS] + "…"
    return ManifestError("", f"could not be parsed as a JSON list: {quoted}: {why}")


def _refuse_constant(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")


def _within_limit(value: list[Any]) -> list[Any]:
    if len(value) > MAX_ITEMS:
        raise _too_many(len(value))
    return value


def _too_many(count: int) -> BoundError:
    return BoundError("", f"{count} items; at most {MAX_ITEMS} are allowed")


def _sequence(sequence: Any) -> list[Any]:
    if not isinstance(sequence, Mapping):
        raise ManifestError("", f"must be a map, not {kind(sequence)}")
    count, end = sequence.get("count"), sequence.get("end")
    if count is not None and end is not None:
        raise ManifestError("", "only one of count or end can be defined")
    if count is None and end is None:
        raise ManifestError("", "neither end nor count was specified")
    start = _integer_field(sequence, "start") if sequence.get("start") is not None else 0
    if count is not None:
        count = _integer_field(sequence, "count")
        if count == 0:
            return []
        last = start + count - 1
    else:
        last = _integer_field(sequence, "end")
    if abs(last - start) >= MAX_ITEMS:
        raise _too_many(abs(last - start) + 1)
    pattern = sequence.get("format") or "%d"
    step = 1 if start <= last else -1
    return [formatted(pattern, number) for number in range(start, last + step, step)]


def _integer_field(sequence: Mapping[str, Any], field: str) -> int:
    value = sequence[field]
    text = str(value)
    if isinstance(value, (bool, float)) or not re.fullmatch(r"[-+]?[0-9]{1,18}", text, re.ASCII):
        raise ManifestError(field, f"must be a whole number, not {text[:40]!r}")
    return int(text)


def formatted(pattern: str, number: int) -> str:
    """Write a whole number with one of Go's verbs (%d, %03d, %x, %X, %o, %b, %v) inside a text.

    Raises ManifestError, path "format", for another verb, none or several.
    """
    if not isinstance(pattern, str):
        raise ManifestError("format", f"must be a text, not {kind(pattern)}")
    used = 0

    def write(match: re.Match[str]) -> str:
        nonlocal used
        if match["verb"] == "%":
            return "%"
        used += 1
        return _verb(match, number)

    text = _VERB.sub(write, pattern)
    if used != 1 or "%" in _VERB.sub("", pattern):
        raise ManifestError("format", f"must have one verb such as %d or %03d, and {pattern!r} has {used}")
    try:
        item = json.loads(f'"{text}"')
    except ValueError:
        raise ManifestError("format", f"{text!r} cannot stand inside a JSON text") from None
    return str(item)


def _verb(match: re.Match[str], number: int) -> str:
    formats = {"d": "d", "v": "d", "x": "x", "X": "X", "o": "o", "b": "b"}
    if match["verb"] not in formats:
        raise ManifestError(
            "format", f"%{match['verb']} does not write a whole number; use %d, %x, %X, %o or %b"
        )
    width, precision = int(match["width"] or 0), match["precision"]
    minimum_digits = int(precision or 0) if precision is not None else 0
    if width > _MAX_WIDTH or minimum_digits > _MAX_WIDTH:
        raise ManifestError("format", f"wider than {_MAX_WIDTH} characters")
    flags = match["flags"]
    digits = format(abs(number), formats[match["verb"]]).rjust(minimum_digits, "0")
    if "#" in flags:
        digits = {"x": "0x", "X": "0X", "o": "0", "b": "0b"}.get(match["verb"], "") + digits
    sign = "-" if number < 0 else "+" if "+" in flags else " " if " " in flags else ""
    if "-" in flags:
        return (sign + digits).ljust(width)
    if "0" in flags and precision is None:
        return sign + digits.rjust(width - len(sign), "0")
    return (sign + digits).rjust(width)


def item_text(item: Any) -> str:
    """Write an item as Argo does: compact JSON, and a text without its quotes but with its escapes."""
    text = unescaped(json_text(item))
    return text[1:-1] if isinstance(item, str) else text


def item_name(base: str, index: int, item: Any) -> str:
    """Name the node of one iteration: base(0:value), for a map base(0:a:1,b:2), never with parentheses inside."""
    if isinstance(item, Mapping):
        value_text = ",".join(sorted(f"{key}:{item_text(value)}" for key, value in item.items()))
    elif isinstance(item, (list, type(None))):
        value_text = f"[{' '.join(item_text(value) for value in item or ())}]"
    else:
        value_text = item_text(item)
    return f"{base}({index}:{value_text.replace('(', '').replace(')', '')})"


def item_scope(item: Any) -> dict[str, str]:
    """Return the values of {{item}} and {{item.key}} in one iteration."""
    if isinstance(item, str):
        return {"item": item}
    if not isinstance(item, Mapping):
        return {"item": item_text(item) if not isinstance(item, list) else json_text(item)}
    scope = {f"item.{key}": item_text(value) for key, value in item.items()}
    scope["item"] = json_text(item)
    return scope


def names(base: str, items_of_loop: Iterable[Any]) -> list[str]:
    """Name the nodes of all iterations, in order."""
    return [item_name(base, index, item) for index, item in enumerate(items_of_loop)]
