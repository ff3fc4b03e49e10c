"""The functions on lists and maps that expr-lang itself has."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from periplus_manifest.errors import ExpressionError
from periplus_manifest.expression import value
from periplus_manifest.expression.budget import Budget
from periplus_manifest.expression.function import ANY, LIST, MAP, TEXT, WHOLE, Table, declare
from periplus_manifest.gotext import AnyKeyed, NilList

TABLE: Table = {}


def _numbers(name: str, given: tuple[Any, ...], budget: Budget, depth: int = 0) -> list[Any]:
    found: list[Any] = []
    budget.step(len(given))
    for item in given:
        if isinstance(item, (list, tuple)) and depth < 50:
            found += _numbers(name, tuple(item), budget, depth + 1)
        elif value.is_number(item):
            found.append(item)
        else:
            raise ExpressionError("", f"invalid argument for {name} (type {value.kind(item)})")
    return found


@declare(TABLE, "max", more=ANY)
def _max(budget: Budget, *given: Any) -> Any:
    return max(_numbers("max", given, budget), default=None) if given != (None,) else None


@declare(TABLE, "min", more=ANY)
def _min(budget: Budget, *given: Any) -> Any:
    return min(_numbers("min", given, budget), default=None) if given != (None,) else None


@declare(TABLE, "mean", more=ANY)
def _mean(budget: Budget, *given: Any) -> float:
    found = _numbers("mean", given, budget)
    return sum(map(float, found)) / len(found) if found else 0.0


@declare(TABLE, "median", more=ANY)
def _median(budget: Budget, *given: Any) -> float:
    found = sorted(map(float, _numbers("median", given, budget)))
    middle = len(found) // 2
    if not found:
        return 0.0
    return found[middle] if len(found) % 2 else (found[middle - 1] + found[middle]) / 2


@declare(TABLE, "first", ANY)
def _first(_: Budget, given: Any) -> Any:
    return given[0] if isinstance(given, (list, tuple)) and given else None


@declare(TABLE, "last", ANY)
def _last(_: Budget, given: Any) -> Any:
    return given[-1] if isinstance(given, (list, tuple)) and given else None


@declare(TABLE, "get", ANY, ANY)
def _get(_: Budget, given: Any, key: Any) -> Any:
    if given is None:
        return None
    try:
        return value.fetched(given, key)
    except ExpressionError:
        if isinstance(given, (list, tuple, str)) and value.is_number(key):
            return None
        raise


@declare(TABLE, "take", LIST, WHOLE)
def _take(_: Budget, given: list[Any], count: int) -> list[Any]:
    if count < 0:
        raise ExpressionError("", f"cannot take {count} elements")
    return given[:count]


@declare(TABLE, "keys", MAP)
def _keys(_: Budget, given: Mapping[str, Any]) -> list[Any]:
    return sorted(given, key=str)


@declare(TABLE, "values", MAP)
def _values(_: Budget, given: Mapping[str, Any]) -> list[Any]:
    return [given[key] for key in sorted(given, key=str)]


@declare(TABLE, "toPairs", MAP)
def _to_pairs(_: Budget, given: Mapping[str, Any]) -> list[list[Any]]:
    return [[key, given[key]] for key in sorted(given, key=str)]


@declare(TABLE, "fromPairs", LIST)
def _from_pairs(budget: Budget, given: list[Any]) -> AnyKeyed:
    budget.step(len(given))
    for pair in given:
        if (
            not isinstance(pair, (list, tuple))
            or len(pair) != 2
            or isinstance(pair[0], (list, tuple, Mapping))
        ):
            raise ExpressionError("", "invalid pair for fromPairs")
    return AnyKeyed((pair[0], pair[1]) for pair in given)


@declare(TABLE, "reverse", LIST)
def _reverse(budget: Budget, given: list[Any]) -> list[Any]:
    budget.room(len(given))
    return list(given)[::-1]


@declare(TABLE, "uniq", LIST)
def uniq(budget: Budget, given: list[Any]) -> list[Any]:
    """Keep the first of equal items."""
    kept: list[Any] = []
    plain: set[Any] = set()
    budget.weigh(given)
    for item in given:
        if isinstance(item, str) or value.is_number(item):
            if item not in plain:
                plain.add(item)
                kept.append(item)
            continue
        budget.step(len(kept))
        if not value.contains(item, kept):
            kept.append(item)
    return kept


@declare(TABLE, "concat", LIST, more=LIST)
def concat(budget: Budget, *given: list[Any]) -> list[Any]:
    """Put lists after one another."""
    budget.room(sum(map(len, given)))
    return [item for each in given for item in each]


@declare(TABLE, "flatten", LIST)
def _flatten(budget: Budget, given: list[Any]) -> list[Any]:
    budget.weigh(given)
    flat: list[Any] = []
    waiting = list(given)[::-1]
    while waiting:
        item = waiting.pop()
        if isinstance(item, (list, tuple)):
            waiting += list(item)[::-1]
        else:
            flat.append(item)
    return flat


@declare(TABLE, "sort", ANY, TEXT, least=1)
def _sort(budget: Budget, given: Any, order: str = "asc") -> list[Any]:
    if not isinstance(given, (list, tuple)):
        return NilList()  # expr-lang takes anything else for a list without items
    return ordered(budget, list(given), list(given), order)


def ordered(budget: Budget, items: list[Any], keys: list[Any], order: str) -> list[Any]:
    """Sort items by their keys, which are all numbers or all texts, "asc" or "desc"."""
    if order not in ("asc", "desc"):
        raise ExpressionError("", f"invalid order {order[:40]}, expected asc or desc")
    budget.room(len(items))
    budget.step(len(items) * 4)
    for before, after in pairwise(keys):
        value.less(before, after)
    pairs = sorted(
        zip(keys, range(len(items)), strict=True), key=lambda pair: pair[0], reverse=order == "desc"
    )
    return [items[place] for _, place in pairs]
