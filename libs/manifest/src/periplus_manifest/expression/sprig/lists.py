"""sprig's functions on lists."""

from __future__ import annotations

from typing import Any

from periplus_manifest import gotext
from periplus_manifest.errors import ExpressionError
from periplus_manifest.expression import value
from periplus_manifest.expression.budget import Budget
from periplus_manifest.expression.function import ANY, LIST, TEXT, WHOLE, Table, declare, declare_both

from .kinds import empty
from .numbers import integer

TABLE: Table = {}


@declare(TABLE, "list", variadic=ANY)
@declare(TABLE, "tuple", variadic=ANY)
def _list(_: Budget, *arguments: Any) -> list[Any]:
    return list(arguments)


@declare_both(TABLE, "first", LIST)
def _first(_: Budget, argument: list[Any]) -> Any:
    return argument[0] if argument else None


@declare_both(TABLE, "last", LIST)
def _last(_: Budget, argument: list[Any]) -> Any:
    return argument[-1] if argument else None


@declare_both(TABLE, "rest", LIST)
def _rest(budget: Budget, argument: list[Any]) -> list[Any]:
    budget.allocate(len(argument))
    return argument[1:] if argument else gotext.NilList()


@declare_both(TABLE, "initial", LIST)
def _initial(budget: Budget, argument: list[Any]) -> list[Any]:
    budget.allocate(len(argument))
    return argument[:-1] if argument else gotext.NilList()


@declare_both(TABLE, "append", LIST, ANY)
@declare_both(TABLE, "push", LIST, ANY)
def _append(budget: Budget, arguments: list[Any], item: Any) -> list[Any]:
    budget.allocate(len(arguments) + 1)
    return [*arguments, item]


@declare_both(TABLE, "prepend", LIST, ANY)
def _prepend(budget: Budget, arguments: list[Any], item: Any) -> list[Any]:
    budget.allocate(len(arguments) + 1)
    return [item, *arguments]


@declare_both(TABLE, "reverse", LIST)
def _reverse(budget: Budget, argument: list[Any]) -> list[Any]:
    budget.allocate(len(argument))
    return list(argument)[::-1]


@declare_both(TABLE, "uniq", LIST)
def _uniq(budget: Budget, argument: list[Any]) -> list[Any]:
    unique: list[Any] = []
    budget.measure(argument)
    for item in argument:
        budget.step(1 + (len(unique) >> 3))
        if not any(value.same(item, other) for other in unique):
            unique.append(item)
    return unique


@declare_both(TABLE, "compact", LIST)
def _compact(budget: Budget, argument: list[Any]) -> list[Any]:
    budget.allocate(len(argument))
    return [item for item in argument if not empty(item)]


@declare_both(TABLE, "without", LIST, variadic=ANY)
def _without(budget: Budget, argument: list[Any], *left: Any) -> list[Any]:
    budget.measure(argument)
    budget.step(len(argument) * len(left))
    return [item for item in argument if not any(value.same(item, other) for other in left)]


@declare_both(TABLE, "has", ANY, ANY)
def _has(budget: Budget, item: Any, argument: Any) -> bool:
    if argument is None:
        return False
    if not isinstance(argument, (list, tuple)):
        raise ExpressionError("", f"cannot find an item in {value.kind(argument)}")
    budget.measure(argument)
    return any(value.same(item, other) for other in argument)


@declare_both(TABLE, "slice", LIST, ANY, ANY, required=1)
def _slice(budget: Budget, argument: list[Any], first: Any = 0, end: Any = None) -> list[Any] | None:
    if not argument:
        return None
    budget.allocate(len(argument))
    start, last = integer(first), len(argument) if end is None else integer(end)
    if not 0 <= start <= last <= len(argument):
        raise ExpressionError("", f"{start} to {last} is outside of the list")
    return argument[start:last]


@declare(TABLE, "concat", variadic=LIST)
def _concat(budget: Budget, *arguments: list[Any]) -> list[Any]:
    budget.allocate(sum(map(len, arguments)))
    return [item for each in arguments for item in each]


@declare_both(TABLE, "chunk", WHOLE, LIST)
def _chunk(budget: Budget, size: int, argument: list[Any]) -> list[list[Any]]:
    if size < 1:
        raise ExpressionError("", f"cannot cut a list into pieces of {size}")
    budget.allocate(len(argument))
    return [argument[start : start + size] for start in range(0, len(argument), size)]


def texts(budget: Budget, argument: Any) -> list[str]:
    """Return anything as a list of texts, nil left out."""
    budget.measure(argument)
    items = argument if isinstance(argument, (list, tuple)) else [argument]
    return [gotext.display(item) for item in items if item is not None]


@declare(TABLE, "toStrings", ANY)
def _to_strings(budget: Budget, argument: Any) -> list[str]:
    return texts(budget, argument)


@declare(TABLE, "join", TEXT, ANY)
def _join(budget: Budget, glue: str, argument: Any) -> str:
    found = texts(budget, argument)
    budget.allocate(sum(map(len, found)) + len(glue) * len(found))
    return glue.join(found)


@declare(TABLE, "sortAlpha", ANY)
def _sort_alpha(budget: Budget, argument: Any) -> list[str]:
    return sorted(texts(budget, argument))
