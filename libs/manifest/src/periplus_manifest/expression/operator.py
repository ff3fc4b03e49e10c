"""Operators that need both of their sides: equality, sums, ranges, membership, and the tests of texts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from periplus_manifest import regex
from periplus_manifest.errors import ExpressionError, ManifestError

from . import value
from .budget import Budget

_TEXTUAL = frozenset(("matches", "contains", "startsWith", "endsWith"))


def applied(budget: Budget, sign: str, left: Any, right: Any, *, negated: bool) -> Any:
    """Apply an operator; `negated` is for not in, not contains and their like. Raises ExpressionError."""
    if isinstance(left, str):
        budget.step(len(left) >> 10)
    if sign in ("==", "!="):
        if isinstance(left, (list, Mapping)) and isinstance(right, (list, Mapping)):
            budget.measure(left)
            budget.measure(right)
        return value.equal(left, right) is (sign == "==")
    if sign == "+":
        if isinstance(left, str) and isinstance(right, str):
            budget.allocate(len(left) + len(right))
        return value.added(left, right)
    if sign == "in":
        _search(budget, right)
        return value.contains(left, right) is not negated
    if sign == "..":
        return _range(budget, left, right)
    if sign in _TEXTUAL:
        return _textual(budget, sign, left, right) is not negated
    return value.computed(sign, left, right)


def _search(budget: Budget, container: Any) -> None:
    """Spend what looking through a list takes."""
    if isinstance(container, (list, tuple)):
        budget.step(len(container) >> 3)
        if any(isinstance(item, (list, Mapping)) for item in container):
            budget.measure(container)


def _range(budget: Budget, first: Any, last: Any) -> list[int]:
    low, high = value.whole(first), value.whole(last)
    budget.allocate(max(high - low + 1, 0))
    return list(range(low, high + 1))


def _textual(budget: Budget, sign: str, left: Any, right: Any) -> bool:
    if not (isinstance(left, str) and isinstance(right, str)):
        if left is None or right is None:
            return False
        raise ExpressionError("", f"invalid operation: {value.kind(left)} {sign} {value.kind(right)}")
    if sign == "contains":
        return right in left
    if sign != "matches":
        return left.startswith(right) if sign == "startsWith" else left.endswith(right)
    try:
        return regex.compile(right).search(left, budget.step)
    except ExpressionError:
        raise
    except ManifestError as error:
        raise ExpressionError("", error.message) from None
