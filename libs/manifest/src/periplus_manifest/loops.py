"""The loops of a step or task: withItems, withParam and withSequence, their items and what each is called."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from . import tags
from .errors import ManifestError
from .gotext import WrittenNumber, json_text, kind, unescaped

FIELDS = ("withItems", "withParam", "withSequence")
MOST_ITEMS = 100_000
_WIDEST = 1_000
_SHOWN = 400

_VERB = re.compile(r"%(?P<flags>[-+# 0]*)(?P<width>\d*)(?:\.(?P<precision>\d*))?(?P<verb>.)", re.DOTALL)


def items(
    call: Mapping[str, Any], lookup: tags.Lookup | None = None, env: Mapping[str, Any] | None = None
) -> list[Any] | None:
    """Give the items that a step or task is run for; None when it has no loop.

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
            return _listed(value)
        return _parsed(value) if field == "withParam" else _counted(value)
    except ManifestError as error:
        raise error.under(field) from None


def _listed(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ManifestError("", f"must be a list, not {kind(value)}")
    return value


def _parsed(text: Any) -> list[Any]:
    if not isinstance(text, str):
        raise ManifestError("", f"must be a text that holds a JSON list, not {kind(text)}")
    try:
        value = json.loads(
            text, parse_float=WrittenNumber, parse_int=_integer, parse_constant=_refuse_constant
        )
    except (ValueError, RecursionError) as error:
        raise _no_list(text, str(error)) from None
    if value is None:
        return []
    if not isinstance(value, list):
        raise _no_list(text, f"it is {kind(value)}")
    return _bounded(value)


def _integer(text: str) -> int | float:
    return WrittenNumber(text) if text == "-0" else int(text)


def _no_list(text: str, why: str) -> ManifestError:
    shown = text.strip()
    shown = shown if len(shown) <= _SHOWN else shown[:_SHOWN] + "…"
    return ManifestError("", f"could not be parsed as a JSON list: {shown}: {why}")


def _refuse_constant(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")


def _bounded(value: list[Any]) -> list[Any]:
    if len(value) > MOST_ITEMS:
        raise ManifestError("", f"{len(value)} items; {MOST_ITEMS} is the most")
    return value


def _counted(sequence: Any) -> list[Any]:
    if not isinstance(sequence, Mapping):
        raise ManifestError("", f"must be a map, not {kind(sequence)}")
    count, end = sequence.get("count"), sequence.get("end")
    if count is not None and end is not None:
        raise ManifestError("", "only one of count or end can be defined")
    if count is None and end is None:
        raise ManifestError("", "neither end nor count was specified")
    start = _whole(sequence, "start") if sequence.get("start") is not None else 0
    if count is not None:
        count = _whole(sequence, "count")
        if count == 0:
            return []
        last = start + count - 1
    else:
        last = _whole(sequence, "end")
    if abs(last - start) >= MOST_ITEMS:
        raise ManifestError("", f"{abs(last - start) + 1} items; {MOST_ITEMS} is the most")
    form = sequence.get("format") or "%d"
    step = 1 if start <= last else -1
    return [formatted(form, number) for number in range(start, last + step, step)]


def _whole(sequence: Mapping[str, Any], field: str) -> int:
    value = sequence[field]
    text = str(value)
    if isinstance(value, (bool, float)) or not re.fullmatch(r"[-+]?[0-9]{1,18}", text, re.ASCII):
        raise ManifestError(field, f"must be a whole number, not {text[:40]!r}")
    return int(text)


def formatted(form: str, number: int) -> str:
    """Write a whole number with one of Go's verbs (%d, %03d, %x, %X, %o, %b, %v) inside a text.

    Raises ManifestError, path "format", for another verb, none or several.
    """
    if not isinstance(form, str):
        raise ManifestError("format", f"must be a text, not {kind(form)}")
    used = 0

    def write(match: re.Match[str]) -> str:
        nonlocal used
        if match["verb"] == "%":
            return "%"
        used += 1
        return _verb(match, number)

    text = _VERB.sub(write, form)
    if used != 1 or "%" in _VERB.sub("", form):
        raise ManifestError("format", f"must have one verb such as %d or %03d, and {form!r} has {used}")
    try:
        item = json.loads(f'"{text}"')
    except ValueError:
        raise ManifestError("format", f"{text!r} cannot stand inside a JSON text") from None
    return str(item)


def _verb(match: re.Match[str], number: int) -> str:
    forms = {"d": "d", "v": "d", "x": "x", "X": "X", "o": "o", "b": "b"}
    if match["verb"] not in forms:
        raise ManifestError(
            "format", f"%{match['verb']} does not write a whole number; use %d, %x, %X, %o or %b"
        )
    width, precision = int(match["width"] or 0), match["precision"]
    least = int(precision or 0) if precision is not None else 0
    if width > _WIDEST or least > _WIDEST:
        raise ManifestError("format", f"wider than {_WIDEST} characters")
    flags = match["flags"]
    digits = format(abs(number), forms[match["verb"]]).rjust(least, "0")
    if "#" in flags:
        digits = {"x": "0x", "X": "0X", "o": "0", "b": "0b"}.get(match["verb"], "") + digits
    sign = "-" if number < 0 else "+" if "+" in flags else " " if " " in flags else ""
    if "-" in flags:
        return (sign + digits).ljust(width)
    if "0" in flags and precision is None:
        return sign + digits.rjust(width - len(sign), "0")
    return (sign + digits).rjust(width)


def item_text(item: Any) -> str:
    """Write an item as Argo shows it: compact JSON, and a text without its quotes but with its escapes."""
    text = unescaped(json_text(item))
    return text[1:-1] if isinstance(item, str) else text


def item_name(base: str, index: int, item: Any) -> str:
    """Name the node of one iteration: base(0:value), for a map base(0:a:1,b:2), never with parentheses inside."""
    if isinstance(item, Mapping):
        shown = ",".join(sorted(f"{key}:{item_text(value)}" for key, value in item.items()))
    elif isinstance(item, (list, type(None))):
        shown = f"[{' '.join(item_text(value) for value in item or ())}]"
    else:
        shown = item_text(item)
    return f"{base}({index}:{shown.replace('(', '').replace(')', '')})"


def item_scope(item: Any) -> dict[str, str]:
    """Give what {{item}} and {{item.key}} stand for in one iteration."""
    if isinstance(item, str):
        return {"item": item}
    if not isinstance(item, Mapping):
        return {"item": item_text(item) if not isinstance(item, list) else json_text(item)}
    scope = {f"item.{key}": item_text(value) for key, value in item.items()}
    scope["item"] = json_text(item)
    return scope


def names(base: str, found: Iterable[Any]) -> list[str]:
    """Name the nodes of all iterations, in order."""
    return [item_name(base, index, item) for index, item in enumerate(found)]
