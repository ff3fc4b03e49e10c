"""sprig's functions on lists and maps, its defaults, and its JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .. import gotext
from ..errors import ExpressionError
from . import builtin, value
from .budget import Budget
from .function import ANY, BOOL, LIST, MAP, TEXT, WHOLE, Table, declare

TABLE: Table = {}


def _both(name: str, *kinds: Any, least: int | None = None, more: Any = None) -> Any:
    """Declare a function under its own name and with must before it."""

    def put(body: Any) -> Any:
        declare(TABLE, name, *kinds, least=least, more=more)(body)
        return declare(TABLE, "must" + name[0].upper() + name[1:], *kinds, least=least, more=more)(body)

    return put


def empty(given: Any) -> bool:
    """Say whether a value counts as not given: nil, 0, false, or without content."""
    return given is None or given is False or (value.is_number(given) and given == 0) or given in ("", [], {}, ())


@declare(TABLE, "empty", ANY)
def _empty(_: Budget, given: Any) -> bool:
    return empty(given)


@declare(TABLE, "default", ANY, ANY, least=1)
def _default(_: Budget, fallback: Any, given: Any = None) -> Any:
    return fallback if empty(given) else given


@declare(TABLE, "coalesce", more=ANY)
def _coalesce(_: Budget, *given: Any) -> Any:
    return next((item for item in given if not empty(item)), None)


@declare(TABLE, "all", more=ANY)
def _all(_: Budget, *given: Any) -> bool:
    return not any(empty(item) for item in given)


@declare(TABLE, "any", more=ANY)
def _any(_: Budget, *given: Any) -> bool:
    return any(not empty(item) for item in given)


@declare(TABLE, "ternary", ANY, ANY, BOOL)
def _ternary(_: Budget, yes: Any, no: Any, condition: bool) -> Any:
    return yes if condition else no


@_both("fromJson", TEXT)
def _from_json(budget: Budget, text: str) -> Any:
    return builtin.from_json(budget, text)


@_both("toJson", ANY)
def _to_json(budget: Budget, given: Any) -> str:
    return _json(budget, given, "")


@_both("toPrettyJson", ANY)
def _to_pretty_json(budget: Budget, given: Any) -> str:
    return _json(budget, given, "  ")


@_both("toRawJson", ANY)
def _to_raw_json(budget: Budget, given: Any) -> str:
    return _json(budget, given, "", html=False)


def _json(budget: Budget, given: Any, indent: str, *, html: bool = True) -> str:
    try:
        return budget.text(gotext.json_text(budget.weigh(given), indent=indent, html=html))
    except ExpressionError:
        raise
    except ValueError as error:
        raise ExpressionError("", str(error)) from None


@declare(TABLE, "list", more=ANY)
@declare(TABLE, "tuple", more=ANY)
def _list(_: Budget, *given: Any) -> list[Any]:
    return list(given)


@_both("first", LIST)
def _first(_: Budget, given: list[Any]) -> Any:
    return given[0] if given else None


@_both("last", LIST)
def _last(_: Budget, given: list[Any]) -> Any:
    return given[-1] if given else None


@_both("rest", LIST)
def _rest(budget: Budget, given: list[Any]) -> list[Any]:
    budget.room(len(given))
    return given[1:]


@_both("initial", LIST)
def _initial(budget: Budget, given: list[Any]) -> list[Any]:
    budget.room(len(given))
    return given[:-1]


@_both("append", LIST, ANY)
@_both("push", LIST, ANY)
def _append(budget: Budget, given: list[Any], item: Any) -> list[Any]:
    budget.room(len(given) + 1)
    return [*given, item]


@_both("prepend", LIST, ANY)
def _prepend(budget: Budget, given: list[Any], item: Any) -> list[Any]:
    budget.room(len(given) + 1)
    return [item, *given]


@_both("reverse", LIST)
def _reverse(budget: Budget, given: list[Any]) -> list[Any]:
    budget.room(len(given))
    return list(given)[::-1]


@_both("uniq", LIST)
def _uniq(budget: Budget, given: list[Any]) -> list[Any]:
    return builtin.uniq(budget, given)


@_both("compact", LIST)
def _compact(budget: Budget, given: list[Any]) -> list[Any]:
    budget.room(len(given))
    return [item for item in given if not empty(item)]


@_both("without", LIST, more=ANY)
def _without(budget: Budget, given: list[Any], *left: Any) -> list[Any]:
    budget.weigh(given)
    budget.step(len(given) * len(left))
    return [item for item in given if not value.contains(item, left)]


@_both("has", ANY, ANY)
def _has(budget: Budget, item: Any, given: Any) -> bool:
    if given is None:
        return False
    if not isinstance(given, (list, tuple)):
        raise ExpressionError("", f"cannot find an item in {value.kind(given)}")
    budget.weigh(given)
    return value.contains(item, given)


@_both("slice", LIST, WHOLE, WHOLE, least=1)
def _slice(budget: Budget, given: list[Any], start: int = 0, end: int | None = None) -> list[Any]:
    budget.room(len(given))
    last = len(given) if end is None else end
    if not 0 <= start <= last <= len(given):
        raise ExpressionError("", f"{start} to {last} is outside of the list")
    return given[start:last]


@declare(TABLE, "concat", more=LIST)
def _concat(budget: Budget, *given: list[Any]) -> list[Any]:
    budget.room(sum(map(len, given)))
    return [item for each in given for item in each]


@_both("chunk", WHOLE, LIST)
def _chunk(budget: Budget, size: int, given: list[Any]) -> list[list[Any]]:
    if size < 1:
        raise ExpressionError("", f"cannot cut a list into pieces of {size}")
    budget.room(len(given))
    return [given[start : start + size] for start in range(0, len(given), size)]


def texts(budget: Budget, given: Any) -> list[str]:
    """Give anything as a list of texts, nil left out."""
    budget.weigh(given)
    items = given if isinstance(given, (list, tuple)) else [given]
    return [gotext.display(item) for item in items if item is not None]


@declare(TABLE, "toStrings", ANY)
def _to_strings(budget: Budget, given: Any) -> list[str]:
    return texts(budget, given)


@declare(TABLE, "join", TEXT, ANY)
def _join(budget: Budget, glue: str, given: Any) -> str:
    found = texts(budget, given)
    budget.room(sum(map(len, found)) + len(glue) * len(found))
    return glue.join(found)


@declare(TABLE, "sortAlpha", ANY)
def _sort_alpha(budget: Budget, given: Any) -> list[str]:
    return sorted(texts(budget, given))


@declare(TABLE, "dict", more=ANY)
def _dict(_: Budget, *given: Any) -> dict[str, Any]:
    keys = [gotext.display(key) for key in given[::2]]
    return dict(zip(keys, (*given[1::2], "") if len(given) % 2 else given[1::2], strict=True))


@declare(TABLE, "get", MAP, TEXT)
def _get(_: Budget, given: Mapping[str, Any], key: str) -> Any:
    return given.get(key, "")


@declare(TABLE, "hasKey", MAP, TEXT)
def _has_key(_: Budget, given: Mapping[str, Any], key: str) -> bool:
    return key in given


@declare(TABLE, "keys", more=MAP)
def _keys(_: Budget, *given: Mapping[str, Any]) -> list[str]:
    return [key for each in given for key in sorted(each, key=str)]


@declare(TABLE, "values", MAP)
def _values(_: Budget, given: Mapping[str, Any]) -> list[Any]:
    return [given[key] for key in sorted(given, key=str)]


@declare(TABLE, "pluck", TEXT, more=MAP)
def _pluck(_: Budget, key: str, *given: Mapping[str, Any]) -> list[Any]:
    return [each[key] for each in given if key in each]


@declare(TABLE, "pick", MAP, more=TEXT)
def _pick(_: Budget, given: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: given[key] for key in keys if key in given}


@declare(TABLE, "omit", MAP, more=TEXT)
def _omit(budget: Budget, given: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    budget.room(len(given))
    return {key: item for key, item in given.items() if key not in keys}


@_both("merge", MAP, more=MAP)
def _merge(budget: Budget, first: Mapping[str, Any], *others: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(first)
    for other in others:
        merged = _merged(budget, merged, other, over=False, depth=0)
    return merged


@_both("mergeOverwrite", MAP, more=MAP)
def _merge_overwrite(budget: Budget, first: Mapping[str, Any], *others: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(first)
    for other in others:
        merged = _merged(budget, merged, other, over=True, depth=0)
    return merged


def _merged(
    budget: Budget, into: Mapping[str, Any], other: Mapping[str, Any], *, over: bool, depth: int
) -> dict[str, Any]:
    if depth > 50:
        raise ExpressionError("", "maps nested too deeply to merge")
    budget.room(len(into) + len(other))
    budget.step(len(other))
    merged = dict(into)
    for key, item in other.items():
        old = merged.get(key)
        if isinstance(old, Mapping) and isinstance(item, Mapping):
            merged[key] = _merged(budget, old, item, over=over, depth=depth + 1)
        elif empty(old) or (over and not empty(item)):
            merged[key] = item
    return merged


@declare(TABLE, "dig", TEXT, more=ANY)
def _dig(_: Budget, first: str, *given: Any) -> Any:
    *keys, fallback, place = (first, *given) if len(given) > 1 else ("", "", "")
    if not keys or not isinstance(place, Mapping) or not all(isinstance(key, str) for key in keys):
        raise ExpressionError("", "sprig.dig takes keys, a default and a map")
    for key in keys:
        if not isinstance(place, Mapping) or key not in place:
            return fallback
        place = place[key]
    return place


@declare(TABLE, "kindOf", ANY)
def _kind_of(_: Budget, given: Any) -> str:
    return {"nil": "invalid", "array": "slice", "float": "float64"}.get(value.kind(given), value.kind(given))


@declare(TABLE, "deepEqual", ANY, ANY)
def _deep_equal(budget: Budget, left: Any, right: Any) -> bool:
    budget.weigh(left)
    budget.weigh(right)
    return value.equal(left, right)
