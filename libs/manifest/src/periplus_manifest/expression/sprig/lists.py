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


@declare(TABLE, "list", more=ANY)
@declare(TABLE, "tuple", more=ANY)
def _list(_: Budget, *given: Any) -> list[Any]:
    return list(given)


@declare_both(TABLE, "first", LIST)
def _first(_: Budget, given: list[Any]) -> Any:
    return given[0] if given else None


@declare_both(TABLE, "last", LIST)
def _last(_: Budget, given: list[Any]) -> Any:
    return given[-1] if given else None


@declare_both(TABLE, "rest", LIST)
def _rest(budget: Budget, given: list[Any]) -> list[Any]:
    budget.room(len(given))
    return given[1:] if given else gotext.NilList()


@declare_both(TABLE, "initial", LIST)
def _initial(budget: Budget, given: list[Any]) -> list[Any]:
    budget.room(len(given))
    return given[:-1] if given else gotext.NilList()


@declare_both(TABLE, "append", LIST, ANY)
@declare_both(TABLE, "push", LIST, ANY)
def _append(budget: Budget, given: list[Any], item: Any) -> list[Any]:
    budget.room(len(given) + 1)
    return [*given, item]


@declare_both(TABLE, "prepend", LIST, ANY)
def _prepend(budget: Budget, given: list[Any], item: Any) -> list[Any]:
    budget.room(len(given) + 1)
    return [item, *given]


@declare_both(TABLE, "reverse", LIST)
def _reverse(budget: Budget, given: list[Any]) -> list[Any]:
    budget.room(len(given))
    return list(given)[::-1]


@declare_both(TABLE, "uniq", LIST)
def _uniq(budget: Budget, given: list[Any]) -> list[Any]:
    kept: list[Any] = []
    budget.weigh(given)
    for item in given:
        budget.step(1 + (len(kept) >> 3))
        if not any(value.same(item, other) for other in kept):
            kept.append(item)
    return kept


@declare_both(TABLE, "compact", LIST)
def _compact(budget: Budget, given: list[Any]) -> list[Any]:
    budget.room(len(given))
    return [item for item in given if not empty(item)]


@declare_both(TABLE, "without", LIST, more=ANY)
def _without(budget: Budget, given: list[Any], *left: Any) -> list[Any]:
    budget.weigh(given)
    budget.step(len(given) * len(left))
    return [item for item in given if not any(value.same(item, other) for other in left)]


@declare_both(TABLE, "has", ANY, ANY)
def _has(budget: Budget, item: Any, given: Any) -> bool:
    if given is None:
        return False
    if not isinstance(given, (list, tuple)):
        raise ExpressionError("", f"cannot find an item in {value.kind(given)}")
    budget.weigh(given)
    return any(value.same(item, other) for other in given)


@declare_both(TABLE, "slice", LIST, ANY, ANY, least=1)
def _slice(budget: Budget, given: list[Any], first: Any = 0, end: Any = None) -> list[Any] | None:
    if not given:
        return None
    budget.room(len(given))
    start, last = integer(first), len(given) if end is None else integer(end)
    if not 0 <= start <= last <= len(given):
        raise ExpressionError("", f"{start} to {last} is outside of the list")
    return given[start:last]


@declare(TABLE, "concat", more=LIST)
def _concat(budget: Budget, *given: list[Any]) -> list[Any]:
    budget.room(sum(map(len, given)))
    return [item for each in given for item in each]


@declare_both(TABLE, "chunk", WHOLE, LIST)
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
