"""sprig's functions on maps, and its JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from periplus_manifest import gotext
from periplus_manifest.errors import ExpressionError
from periplus_manifest.expression.budget import Budget
from periplus_manifest.expression.builtin.values import from_json
from periplus_manifest.expression.function import ANY, MAP, TEXT, Table, declare, declare_both

from .kinds import empty

TABLE: Table = {}


@declare(TABLE, "mustFromJson", TEXT)
def _must_from_json(budget: Budget, text: str) -> Any:
    return from_json(budget, text)


@declare(TABLE, "fromJson", TEXT)
def _from_json(budget: Budget, text: str) -> Any:
    try:
        return from_json(budget, text)
    except ExpressionError:
        return None


@declare_both(TABLE, "toJson", ANY)
def _to_json(budget: Budget, given: Any) -> str:
    return _json(budget, given, "")


@declare_both(TABLE, "toPrettyJson", ANY)
def _to_pretty_json(budget: Budget, given: Any) -> str:
    return _json(budget, given, "  ")


@declare_both(TABLE, "toRawJson", ANY)
def _to_raw_json(budget: Budget, given: Any) -> str:
    return _json(budget, given, "", html=False)


def _json(budget: Budget, given: Any, indent: str, *, html: bool = True) -> str:
    try:
        return budget.text(gotext.json_text(budget.weigh(given), indent=indent, html=html))
    except ExpressionError:
        raise
    except ValueError as error:
        raise ExpressionError("", str(error)) from None


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


@declare_both(TABLE, "merge", MAP, more=MAP)
def _merge(budget: Budget, first: Mapping[str, Any], *others: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(first)
    for other in others:
        merged = _merged(budget, merged, other, over=False, depth=0)
    return merged


@declare_both(TABLE, "mergeOverwrite", MAP, more=MAP)
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


@declare_both(TABLE, "deepCopy", ANY)
def _deep_copy(_: Budget, given: Any) -> Any:
    # No function here changes what it is given, so a value is as good as its copy.
    if given is None:
        raise ExpressionError("", "sprig.deepCopy takes no nil")
    return given


@declare(TABLE, "set", MAP, TEXT, ANY)
def _set(budget: Budget, given: Mapping[str, Any], key: str, item: Any) -> dict[str, Any]:
    budget.room(len(given) + 1)
    return {**given, key: item}


@declare(TABLE, "unset", MAP, TEXT)
def _unset(budget: Budget, given: Mapping[str, Any], key: str) -> dict[str, Any]:
    budget.room(len(given))
    return {each: item for each, item in given.items() if each != key}
