"""The operators of a `when`, each with the kinds of operands that govaluate requires."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from periplus_manifest import regex
from periplus_manifest.errors import ConditionError, ManifestError
from periplus_manifest.gotext import display


def check_operand(is_valid: bool, value: Any, operator: str, expected: str) -> None:
    """Raise ConditionError unless `is_valid`; `expected` says what the operator takes."""
    if not is_valid:
        raise ConditionError(
            "", f"value '{display(value)[:80]}' cannot be used with '{operator}', it is not {expected}"
        )


def prefixed(operator: str, value: Any) -> Any:
    """Apply !, - or ~."""
    if operator == "!":
        check_operand(isinstance(value, bool), value, "!", "a bool")
        return not value
    check_operand(isinstance(value, float), value, operator, "a number")
    return -value if operator == "-" else float(~_int64(value))


def _same(left: Any, right: Any) -> bool:
    return type(left) is type(right) and bool(left == right)


def _ordered(operator: str, holds: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def compare(left: Any, right: Any) -> bool:
        texts = isinstance(left, str) and isinstance(right, str)
        if not texts:
            for side in (left, right):
                check_operand(isinstance(side, float), side, operator, "a number")
        return holds(left, right)

    return compare


def matches(operator: str, left: Any, right: Any, spend: Callable[[int], None]) -> bool:
    """Apply =~ or !~; `spend` is called with the steps that the regular expression takes."""
    for side in (left, right):
        check_operand(isinstance(side, str), side, operator, "a text")
    try:
        return regex.compile(right).search(left, spend) is (operator == "=~")
    except ConditionError:
        raise
    except ManifestError as error:
        raise ConditionError("", error.message) from None


def _in_list(left: Any, right: Any) -> bool:
    check_operand(isinstance(right, tuple), right, "in", "a list such as (a, b)")
    return any(_same(left, each) for each in right)


def _added(left: Any, right: Any) -> Any:
    if isinstance(left, str) or isinstance(right, str):
        return display(left) + display(right)
    for side in (left, right):
        check_operand(isinstance(side, float), side, "+", "a number")
    return left + right


def _numeric(operator: str, compute: Callable[[float, float], float]) -> Callable[[Any, Any], float]:
    def apply(left: Any, right: Any) -> float:
        for side in (left, right):
            check_operand(isinstance(side, float), side, operator, "a number")
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
    bits = _int64(by)
    return float((_int64(value) << bits) & ((1 << 64) - 1)) if 0 <= bits < 64 else 0.0


def _appended(left: Any, right: Any) -> tuple[Any, ...]:
    return (*left, right) if isinstance(left, tuple) else (left, right)


OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    ",": _appended,
    "==": _same,
    "!=": lambda left, right: not _same(left, right),
    ">": _ordered(">", lambda left, right: left > right),
    ">=": _ordered(">=", lambda left, right: left >= right),
    "<": _ordered("<", lambda left, right: left < right),
    "<=": _ordered("<=", lambda left, right: left <= right),
    "in": _in_list,
    "+": _added,
    "-": _numeric("-", lambda left, right: left - right),
    "*": _numeric("*", lambda left, right: left * right),
    "/": _numeric("/", _divided),
    "%": _numeric("%", math.fmod),
    "**": _numeric("**", math.pow),
    "&": _numeric("&", lambda left, right: _int64(left) & _int64(right)),
    "|": _numeric("|", lambda left, right: _int64(left) | _int64(right)),
    "^": _numeric("^", lambda left, right: _int64(left) ^ _int64(right)),
    "<<": _numeric("<<", _shifted),
    ">>": _numeric(">>", lambda left, right: _int64(left) >> min(max(_int64(right), 0), 64)),
}
