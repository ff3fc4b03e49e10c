"""sprig's functions on numbers, and its lenient conversions: what is no number counts as 0."""

from __future__ import annotations

import math
import re
import secrets
from collections.abc import Callable
from decimal import ROUND_HALF_UP, Context, Decimal
from typing import Any

from periplus_manifest.errors import ExpressionError
from periplus_manifest.expression.budget import Budget
from periplus_manifest.expression.function import ANY, NUMBER, TEXT, WHOLE, Table, declare
from periplus_manifest.expression.value import whole, wrapped
from periplus_manifest.gotext import display

TABLE: Table = {}

_INTEGER = re.compile(r"([-+]?)(0[xX][0-9a-fA-F]+|0[bB][01]+|0[oO]?[0-7]+|0|[1-9][0-9]*)(?:\.0*)?", re.ASCII)
_DECIMAL = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?", re.ASCII)


def integer(argument: Any) -> int:
    """Return anything as an int; what is none is 0."""
    if isinstance(argument, bool):
        return int(argument)
    if isinstance(argument, (int, float)):
        return whole(argument)
    if not isinstance(argument, str) or len(argument) > 400 or not (match := _INTEGER.fullmatch(argument)):
        return 0
    digits = match[2]
    if len(digits) > 1 and digits[0] == "0" and digits[1].isdigit():
        digits = "0o" + digits[1:]
    number = int(match[1] + "1") * int(digits, 0) if match[1] else int(digits, 0)
    return number if wrapped(number) == number else 0


def fraction(argument: Any) -> float:
    """Return anything as a float; what is none is 0."""
    if isinstance(argument, (bool, int, float)):
        return float(argument)
    if not isinstance(argument, str) or len(argument) > 400 or not _DECIMAL.fullmatch(argument):
        return 0.0
    number = float(argument)
    return number if math.isfinite(number) else 0.0


@declare(TABLE, "int", ANY)
@declare(TABLE, "int64", ANY)
def _int(_: Budget, argument: Any) -> int:
    return integer(argument)


@declare(TABLE, "float64", ANY)
def _float64(_: Budget, argument: Any) -> float:
    return fraction(argument)


@declare(TABLE, "atoi", TEXT)
def _atoi(_: Budget, text: str) -> int:
    return int(text) if re.fullmatch(r"[-+]?[0-9]{1,18}", text, re.ASCII) else 0


@declare(TABLE, "toDecimal", ANY)
def _to_decimal(_: Budget, argument: Any) -> int:
    text = display(argument)
    return int(text, 8) if re.fullmatch(r"[-+]?[0-7]{1,20}", text, re.ASCII) else 0


@declare(TABLE, "add", variadic=ANY)
def _add(_: Budget, *arguments: Any) -> int:
    return wrapped(sum(map(integer, arguments)))


@declare(TABLE, "add1", ANY)
def _add1(_: Budget, argument: Any) -> int:
    return wrapped(integer(argument) + 1)


@declare(TABLE, "sub", ANY, ANY)
def _sub(_: Budget, left: Any, right: Any) -> int:
    return wrapped(integer(left) - integer(right))


@declare(TABLE, "mul", ANY, variadic=ANY)
def _mul(_: Budget, first: Any, *others: Any) -> int:
    product = integer(first)
    for other in others:
        product = wrapped(product * integer(other))
    return product


def _quotient(left: Any, right: Any) -> tuple[int, int]:
    above, below = integer(left), integer(right)
    if below == 0:
        raise ExpressionError("", "integer divide by zero")
    quotient = abs(above) // abs(below)
    quotient = quotient if (above < 0) is (below < 0) else -quotient
    return wrapped(quotient), above - quotient * below


@declare(TABLE, "div", ANY, ANY)
def _div(_: Budget, left: Any, right: Any) -> int:
    return _quotient(left, right)[0]


@declare(TABLE, "mod", ANY, ANY)
def _mod(_: Budget, left: Any, right: Any) -> int:
    return _quotient(left, right)[1]


@declare(TABLE, "max", ANY, variadic=ANY)
@declare(TABLE, "biggest", ANY, variadic=ANY)
def _max(_: Budget, *arguments: Any) -> int:
    return max(map(integer, arguments))


@declare(TABLE, "min", ANY, variadic=ANY)
def _min(_: Budget, *arguments: Any) -> int:
    return min(map(integer, arguments))


@declare(TABLE, "maxf", ANY, variadic=ANY)
def _maxf(_: Budget, *arguments: Any) -> float:
    return max(map(fraction, arguments))


@declare(TABLE, "minf", ANY, variadic=ANY)
def _minf(_: Budget, *arguments: Any) -> float:
    return min(map(fraction, arguments))


# sprig counts in decimals: 3 times 0.1 is 0.3 there. Two floats of any size have no more digits together.
_DECIMALS = Context(prec=1_500, Emax=10_000, Emin=-10_000)
_DIVISION = Decimal("1e-16")


def _fold(name: str, compute: Callable[[Decimal, Decimal], Decimal]) -> None:
    @declare(TABLE, name, ANY, variadic=ANY)
    def _(budget: Budget, first: Any, *others: Any) -> float:
        result = _decimal(first)
        for other in others:
            budget.step(50)
            try:
                result = compute(result, _decimal(other))
            except (ZeroDivisionError, ArithmeticError):
                raise ExpressionError("", f"sprig.{name} has no result") from None
        return float(result)


def _decimal(argument: Any) -> Decimal:
    number = fraction(argument)
    if not math.isfinite(number):
        raise ExpressionError("", f"cannot count with {display(number)}")
    return Decimal(repr(number))


_fold("addf", _DECIMALS.add)
_fold("subf", _DECIMALS.subtract)
_fold("mulf", _DECIMALS.multiply)
_fold(
    "divf",
    lambda left, right: _DECIMALS.divide(left, right).quantize(_DIVISION, ROUND_HALF_UP, _DECIMALS),
)


@declare(TABLE, "add1f", ANY)
def _add1f(_: Budget, argument: Any) -> float:
    return float(_DECIMALS.add(_decimal(argument), Decimal(1)))


@declare(TABLE, "floor", ANY)
def _floor(_: Budget, argument: Any) -> float:
    number = fraction(argument)
    return float(math.floor(number)) if math.isfinite(number) else number


@declare(TABLE, "ceil", ANY)
def _ceil(_: Budget, argument: Any) -> float:
    number = fraction(argument)
    return float(math.ceil(number)) if math.isfinite(number) else number


@declare(TABLE, "round", ANY, WHOLE, NUMBER, required=2)
def _round(_: Budget, argument: Any, places: int, turn: float = 0.5) -> float:
    if abs(places) > 300:
        raise ExpressionError("", f"cannot round to {places} places")
    scale = math.pow(10, places)
    scaled = scale * fraction(argument)
    if not math.isfinite(scaled):
        return fraction(argument)
    rest = math.modf(scaled)[0]
    return (math.ceil(scaled) if rest >= turn else math.floor(scaled)) / scale


def _steps(budget: Budget, start: int, stop: int, step: int) -> list[int]:
    if (stop < start and step >= 0) or (stop >= start and step <= 0):
        return []
    budget.allocate(abs(stop - start) // abs(step) + 1)
    return list(range(start, stop, step))


@declare(TABLE, "until", WHOLE)
def _until(budget: Budget, count: int) -> list[int]:
    return _steps(budget, 0, count, -1 if count < 0 else 1)


@declare(TABLE, "untilStep", WHOLE, WHOLE, WHOLE)
def _until_step(budget: Budget, start: int, stop: int, step: int) -> list[int]:
    return _steps(budget, start, stop, step)


@declare(TABLE, "seq", WHOLE, WHOLE, WHOLE, required=0)
def _seq(budget: Budget, *arguments: int) -> str:
    if not arguments:
        return ""
    start, stop = (1 if len(arguments) == 1 else arguments[0]), arguments[-1]
    towards = -1 if stop < start else 1
    step = arguments[1] if len(arguments) == 3 else towards
    if towards < 0 < step:
        return ""
    return budget.text(" ".join(map(str, _steps(budget, start, stop + towards, step))))


@declare(TABLE, "randInt", WHOLE, WHOLE, is_volatile=True)
def _rand_int(_: Budget, low: int, high: int) -> int:
    if high <= low:
        raise ExpressionError("", f"no whole number from {low} below {high}")
    return low + secrets.randbelow(high - low)
