"""The functions that evaluate a predicate for each item: filter, map, any, reduce and others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from periplus_manifest.errors import ExpressionError
from periplus_manifest.expression import value
from periplus_manifest.expression.budget import Budget
from periplus_manifest.gotext import AnyKeyed

from .lists import ordered

# For each function: how many arguments it must have and may have. The second is the predicate.
PREDICATES = {
    **dict.fromkeys(("all", "none", "any", "one", "filter", "map", "find", "findIndex"), (2, 2)),
    **dict.fromkeys(("findLast", "findLastIndex", "groupBy"), (2, 2)),
    **dict.fromkeys(("count", "sum"), (1, 2)),
    **dict.fromkeys(("sortBy", "reduce"), (2, 3)),
}

Predicate = Callable[[Any, int, Any], Any]
"""Evaluates a predicate for an item, its index, and what reduce has accumulated."""


def apply(budget: Budget, name: str, items: Any, predicate: Predicate | None, extra: Any) -> Any:
    """Apply one of PREDICATES. Raises ExpressionError for what is no list, and for results of a wrong kind."""
    if not isinstance(items, (list, tuple)):
        raise ExpressionError("", f"{name} takes an array, not {value.kind(items)}")
    budget.allocate(len(items))
    answers = _answers(items, predicate)
    if name in ("map", "sum", "groupBy", "sortBy"):
        return _gathered(budget, name, items, list(answers), extra)
    if name == "reduce":
        raise AssertionError("reduce is evaluated by reduced()")
    yes = (_holds(name, answer) for answer in answers)
    if name in ("all", "any", "none"):
        found = any(not it for it in yes) if name == "all" else any(yes)
        return found is (name == "any")
    return _chosen(name, items, yes)


def _answers(items: Any, predicate: Predicate | None) -> Iterator[Any]:
    for index, item in enumerate(items):
        yield item if predicate is None else predicate(item, index, None)


def _holds(name: str, answer: Any) -> bool:
    if not isinstance(answer, bool):
        raise ExpressionError(
            "", f"the predicate of {name} must give true or false, not {value.kind(answer)}"
        )
    return answer


def _chosen(name: str, items: Any, yes: Iterator[bool]) -> Any:
    if name in ("find", "findIndex"):
        index = next((index for index, it in enumerate(yes) if it), -1)
    else:
        indexes = [index for index, it in enumerate(yes) if it]
        if name == "filter":
            return [items[index] for index in indexes]
        if name in ("count", "one"):
            return len(indexes) if name == "count" else len(indexes) == 1
        index = indexes[-1] if indexes else -1
    if name.endswith("Index"):
        return index if index >= 0 else None
    return items[index] if index >= 0 else None


def _gathered(budget: Budget, name: str, items: Any, answers: list[Any], extra: Any) -> Any:
    if name == "map":
        return answers
    if name == "sortBy":
        order = extra if extra is not None else "asc"
        if not isinstance(order, str):
            raise ExpressionError("", f"the order of sortBy is asc or desc, not {value.kind(order)}")
        return ordered(budget, list(items), answers, order)
    if name == "sum":
        total: Any = 0
        for answer in answers:
            total = value.added(total, answer)
        return total
    groups = AnyKeyed()
    for item, answer in zip(items, answers, strict=True):
        if isinstance(answer, (list, dict)):
            raise ExpressionError("", f"cannot group by {value.kind(answer)}")
        groups.setdefault(answer, []).append(item)
    return groups


def reduced(items: Any, predicate: Predicate, start: Any, *, started: bool) -> Any:
    """Reduce the items to one value, beginning with `start` or, if not `started`, with the first item."""
    if not isinstance(items, (list, tuple)):
        raise ExpressionError("", f"reduce takes an array, not {value.kind(items)}")
    if not items and not started:
        raise ExpressionError("", "reduce of an empty array needs an initial value")
    gathered = start if started else items[0]
    for index in range(0 if started else 1, len(items)):
        gathered = predicate(items[index], index, gathered)
    return gathered
