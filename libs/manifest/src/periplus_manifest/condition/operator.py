"""The operators of a `when`, each with the kinds of operands that govaluate wants for it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from periplus_manifest import regex
from periplus_manifest.errors import ConditionError, ManifestError
from periplus_manifest.gotext import display


def wants(fits: bool, value: Any, operator: str, what: str) -> None:
    """Raise ConditionError unless an operand is what its operator takes."""
    if not fits:
        raise ConditionError(
            "", f"value '{display(value)[:80]}' cannot be used with '{operator}', it is not {what}"
        )


def prefixed(operator: str, value: Any) -> Any:
    """Apply !, - or ~."""
    if operator == "!":
        wants(isinstance(value, bool), value, "!", "a bool")
        return not value
    wants(isinstance(value, float), value, operator, "a number")
    return -value if operator == "-" else float(~_int64(value))


def _same(left: Any, right: Any) -> bool:
    return type(left) is type(right) and bool(left == right)


def _ordered(operator: str, holds: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def compare(left: Any, right: Any) -> bool:
        texts = isinstance(left, str) and isinstance(right, str)
        if not texts:
            for side in (left, right):
                wants(isinstance(side, float), side, operator, "a number")
        return holds(left, right)

    return compare


def matches(operator: str, left: Any, right: Any, spend: Callable[[int], None]) -> bool:
    """Apply =~ or !~; `spend` is told of the steps that the regular expression takes."""
    for side in (left, right):
        wants(isinstance(side, str), side, operator, "a text")
    try:
        return regex.compile(right).search(left, spend) is (operator == "=~")
    except ConditionError:
        raise
    except ManifestError as error:
        raise ConditionError("", error.message) from None


def _within(left: Any, right: Any) -> bool:
    wants(isinstance(right, tuple), right, "in", "a list such as (a, b)")
    return any(_same(left, each) for each in right)


def _added(left: Any, right: Any) -> Any:
    if isinstance(left, str) or isinstance(right, str):
        return display(left) + display(right)
    for side in (left, right):
        wants(isinstance(side, float), side, "+", "a number")
    return left + right


def _number(operator: str, compute: Callable[[float, float], float]) -> Callable[[Any, Any], float]:
    def apply(left: Any, right: Any) -> float:
        for side in (left, right):
            wants(isinstance(side, float), side, operator, "a number")
        try:
            return float(compute(left, right))
        except (ArithmeticError, ValueError):
            return math.nan

    return apply


def _divided(left: float, right: float) -> float:
    if right == 0:
        return (
            math.nan
            if left == 0 or math.isnan(left)
            else math.copysign(math.inf, left) * math.copysign(1, right)
        )
    return left / right


def _int64(value: float) -> int:
    if not math.isfinite(value):
        return -(1 << 63)
    return max(min(int(value), (1 << 63) - 1), -(1 << 63))


def _shifted(value: float, by: float) -> float:
    places = _int64(by)
    return float((_int64(value) << places) & ((1 << 64) - 1)) if 0 <= places < 64 else 0.0


def _listed(left: Any, right: Any) -> tuple[Any, ...]:
    return (*left, right) if isinstance(left, tuple) else (left, right)


OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    ",": _listed,
    "==": _same,
    "!=": lambda left, right: not _same(left, right),
    ">": _ordered(">", lambda left, right: left > right),
    ">=": _ordered(">=", lambda left, right: left >= right),
    "<": _ordered("<", lambda left, right: left < right),
    "<=": _ordered("<=", lambda left, right: left <= right),
    "in": _within,
    "+": _added,
    "-": _number("-", lambda left, right: left - right),
    "*": _number("*", lambda left, right: left * right),
    "/": _number("/", _divided),
    "%": _number("%", math.fmod),
    "**": _number("**", math.pow),
    "&": _number("&", lambda left, right: _int64(left) & _int64(right)),
    "|": _number("|", lambda left, right: _int64(left) | _int64(right)),
    "^": _number("^", lambda left, right: _int64(left) ^ _int64(right)),
    "<<": _number("<<", _shifted),
    ">>": _number(">>", lambda left, right: _int64(left) >> min(max(_int64(right), 0), 64)),
}
