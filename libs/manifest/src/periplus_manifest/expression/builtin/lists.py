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


def _numbers(name: str, argument: tuple[Any, ...], budget: Budget, depth: int = 0) -> list[Any]:
    found: list[Any] = []
    budget.step(len(argument))
    for item in argument:
        if isinstance(item, (list, tuple)) and depth < 50:
            found += _numbers(name, tuple(item), budget, depth + 1)
        elif value.is_number(item):
            found.append(item)
        else:
            raise ExpressionError("", f"invalid argument for {name} (type {value.kind(item)})")
    return found


@declare(TABLE, "max", variadic=ANY)
def _max(budget: Budget, *arguments: Any) -> Any:
    return max(_numbers("max", arguments, budget), default=None) if arguments != (None,) else None


@declare(TABLE, "min", variadic=ANY)
def _min(budget: Budget, *arguments: Any) -> Any:
    return min(_numbers("min", arguments, budget), default=None) if arguments != (None,) else None


@declare(TABLE, "mean", variadic=ANY)
def _mean(budget: Budget, *arguments: Any) -> float:
    found = _numbers("mean", arguments, budget)
    return sum(map(float, found)) / len(found) if found else 0.0


@declare(TABLE, "median", variadic=ANY)
def _median(budget: Budget, *arguments: Any) -> float:
    found = sorted(map(float, _numbers("median", arguments, budget)))
    middle = len(found) // 2
    if not found:
        return 0.0
    return found[middle] if len(found) % 2 else (found[middle - 1] + found[middle]) / 2


@declare(TABLE, "first", ANY)
def _first(_: Budget, argument: Any) -> Any:
    return argument[0] if isinstance(argument, (list, tuple)) and argument else None


@declare(TABLE, "last", ANY)
def _last(_: Budget, argument: Any) -> Any:
    return argument[-1] if isinstance(argument, (list, tuple)) and argument else None


@declare(TABLE, "get", ANY, ANY)
def _get(_: Budget, argument: Any, key: Any) -> Any:
    if argument is None:
        return None
    try:
        return value.fetched(argument, key)
    except ExpressionError:
        if isinstance(argument, (list, tuple, str)) and value.is_number(key):
            return None
        raise


@declare(TABLE, "take", LIST, WHOLE)
def _take(_: Budget, argument: list[Any], count: int) -> list[Any]:
    if count < 0:
        raise ExpressionError("", f"cannot take {count} elements")
    return argument[:count]


@declare(TABLE, "keys", MAP)
def _keys(_: Budget, argument: Mapping[str, Any]) -> list[Any]:
    return sorted(argument, key=str)


@declare(TABLE, "values", MAP)
def _values(_: Budget, argument: Mapping[str, Any]) -> list[Any]:
    return [argument[key] for key in sorted(argument, key=str)]


@declare(TABLE, "toPairs", MAP)
def _to_pairs(_: Budget, argument: Mapping[str, Any]) -> list[list[Any]]:
    return [[key, argument[key]] for key in sorted(argument, key=str)]


@declare(TABLE, "fromPairs", LIST)
def _from_pairs(budget: Budget, argument: list[Any]) -> AnyKeyed:
    budget.step(len(argument))
    for pair in argument:
        if (
            not isinstance(pair, (list, tuple))
            or len(pair) != 2
            or isinstance(pair[0], (list, tuple, Mapping))
        ):
            raise ExpressionError("", "invalid pair for fromPairs")
    return AnyKeyed((pair[0], pair[1]) for pair in argument)


@declare(TABLE, "reverse", LIST)
def _reverse(budget: Budget, argument: list[Any]) -> list[Any]:
    budget.allocate(len(argument))
    return list(argument)[::-1]


@declare(TABLE, "uniq", LIST)
def uniq(budget: Budget, argument: list[Any]) -> list[Any]:
    """Keep the first of equal items."""
    unique: list[Any] = []
    plain: set[Any] = set()
    budget.measure(argument)
    for item in argument:
        if isinstance(item, str) or value.is_number(item):
            if item not in plain:
                plain.add(item)
                unique.append(item)
            continue
        budget.step(len(unique))
        if not value.contains(item, unique):
            unique.append(item)
    return unique


@declare(TABLE, "concat", LIST, variadic=LIST)
def concat(budget: Budget, *arguments: list[Any]) -> list[Any]:
    """Put lists after one another."""
    budget.allocate(sum(map(len, arguments)))
    return [item for each in arguments for item in each]


@declare(TABLE, "flatten", LIST)
def _flatten(budget: Budget, argument: list[Any]) -> list[Any]:
    budget.measure(argument)
    flat: list[Any] = []
    pending = list(argument)[::-1]
    while pending:
        item = pending.pop()
        if isinstance(item, (list, tuple)):
            pending += list(item)[::-1]
        else:
            flat.append(item)
    return flat


@declare(TABLE, "sort", ANY, TEXT, required=1)
def _sort(budget: Budget, argument: Any, order: str = "asc") -> list[Any]:
    if not isinstance(argument, (list, tuple)):
        return NilList()  # expr-lang takes anything else for a list without items
    return ordered(budget, list(argument), list(argument), order)


def ordered(budget: Budget, items: list[Any], keys: list[Any], order: str) -> list[Any]:
    """Sort items by their keys, which are all numbers or all texts, "asc" or "desc"."""
    if order not in ("asc", "desc"):
        raise ExpressionError("", f"invalid order {order[:40]}, expected asc or desc")
    budget.allocate(len(items))
    budget.step(len(items) * 4)
    for before, after in pairwise(keys):
        value.less(before, after)
    pairs = sorted(
        zip(keys, range(len(items)), strict=True), key=lambda pair: pair[0], reverse=order == "desc"
    )
    return [items[index] for _, index in pairs]
