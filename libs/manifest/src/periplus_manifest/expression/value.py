"""Values of an expression: how Go compares, adds and names them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from periplus_manifest.errors import ExpressionError

_WORD = 1 << 64
_HALF = 1 << 63


def kind(value: Any) -> str:
    """Name a value's type as Go's %T would, shortened to what a reader needs."""
    if value is None:
        return "nil"
    names: tuple[tuple[type | tuple[type, ...], str], ...] = (
        (bool, "bool"),
        (int, "int"),
        (float, "float"),
        (str, "string"),
        (Mapping, "map"),
        ((list, tuple), "array"),
        (datetime, "time"),
        (timedelta, "duration"),
    )
    return next((name for types, name in names if isinstance(value, types)), type(value).__name__)


def mismatch(sign: str, left: str | None, right: str | None) -> ExpressionError:
    """Build the error for an operator between values of kinds that it does not take."""
    return ExpressionError("", f"invalid operation: {sign} (mismatched types {left} and {right})")


def is_number(value: Any) -> bool:
    """Say whether a value is an int or a float, and no boolean."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def wrapped(number: int) -> int:
    """Keep an int within 64 bits as Go does, by wrapping round."""
    return number if -_HALF <= number < _HALF else (number + _HALF) % _WORD - _HALF


def whole(value: Any) -> int:
    """Return a number as an int, a fraction cut off. Raises ExpressionError for anything else."""
    if not is_number(value):
        raise ExpressionError("", f"invalid operation: int({kind(value)})")
    if isinstance(value, float):
        if not math.isfinite(value):
            return -_HALF
        return wrapped(int(value)) if abs(value) < _HALF else -_HALF
    return int(value)


def equal(left: Any, right: Any) -> bool:
    """Compare as expr-lang does: numbers by value, everything else only with its own type."""
    if is_number(left) and is_number(right):
        return bool(left == right)
    if left is None or right is None:
        return left is right
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, str) or isinstance(right, str):
        return isinstance(left, str) and isinstance(right, str) and left == right
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return left.keys() == right.keys() and all(equal(item, right[key]) for key, item in left.items())
    if isinstance(left, (list, tuple)) and isinstance(right, (list, tuple)):
        return len(left) == len(right) and all(equal(*pair) for pair in zip(left, right, strict=True))
    return type(left) is type(right) and bool(left == right)


def same(left: Any, right: Any) -> bool:
    """Compare as reflect.DeepEqual does: an int is never the same as a float."""
    if kind(left) != kind(right):
        return False
    if isinstance(left, Mapping):
        return left.keys() == right.keys() and all(same(item, right[key]) for key, item in left.items())
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(same(*pair) for pair in zip(left, right, strict=True))
    return bool(left == right)


def less(left: Any, right: Any, sign: str = "<") -> bool:
    """Order numbers, texts, times and durations. Raises ExpressionError for a mixture."""
    if is_number(left) and is_number(right):
        return bool(left < right)
    if isinstance(left, str) and isinstance(right, str):
        return left < right
    if isinstance(left, datetime) and isinstance(right, datetime):
        return left < right
    if isinstance(left, timedelta) and isinstance(right, timedelta):
        return left < right
    raise ExpressionError("", f"invalid operation: {kind(left)} {sign} {kind(right)}")


def compares(sign: str, left: Any, right: Any) -> bool:
    """Apply <, <=, > or >=. Raises ExpressionError for a mixture; NaN is neither below nor above anything."""
    if any(isinstance(side, float) and math.isnan(side) for side in (left, right)):
        return False
    if sign in ("<", ">="):
        return less(left, right, sign) is (sign == "<")
    return less(right, left, sign) is (sign == ">")


def added(left: Any, right: Any) -> Any:
    """Add numbers, texts, times and durations. Raises ExpressionError for a mixture."""
    if isinstance(left, str) and isinstance(right, str):
        return left + right
    if is_number(left) and is_number(right):
        total = left + right
        return wrapped(total) if isinstance(total, int) else total
    if isinstance(left, timedelta) and isinstance(right, datetime):
        left, right = right, left
    if isinstance(left, (datetime, timedelta)) and isinstance(right, timedelta):
        return moved(left, right)
    raise ExpressionError("", f"invalid operation: {kind(left)} + {kind(right)}")


def moved(start: datetime | timedelta, by: timedelta) -> datetime | timedelta:
    """Add a duration. Raises ExpressionError where that leads out of the calendar."""
    try:
        return start + by
    except OverflowError:
        raise ExpressionError("", "a time outside of the calendar") from None


def _apart(left: Any, right: Any) -> Any:
    """Take a time or a duration away; None when the two are something else."""
    if isinstance(left, datetime) and isinstance(right, datetime):
        return left - right
    if isinstance(left, (datetime, timedelta)) and isinstance(right, timedelta):
        return moved(left, -right)
    return None


def computed(sign: str, left: Any, right: Any) -> Any:
    """Apply -, *, /, %, ** or ^. Raises ExpressionError for what is no number."""
    if sign == "-" and (apart := _apart(left, right)) is not None:
        return apart
    if not (is_number(left) and is_number(right)):
        raise ExpressionError("", f"invalid operation: {kind(left)} {sign} {kind(right)}")
    if sign == "/":
        return _divided(float(left), float(right))
    if sign in ("**", "^"):
        return _power(float(left), float(right))
    if sign == "%":
        return _remainder(left, right)
    result = left - right if sign == "-" else left * right
    return wrapped(result) if isinstance(result, int) else result


def _divided(left: float, right: float) -> float:
    if right:
        return left / right
    return (
        math.nan if not left or math.isnan(left) else math.copysign(math.inf, left) * math.copysign(1, right)
    )


def _power(base: float, exponent: float) -> float:
    if math.isfinite(base) and base and exponent not in (0, 1, 0.5, -0.5) and abs(exponent) < _HALF:
        return _multiplied(base, exponent)
    try:
        return math.pow(base, exponent)
    except OverflowError:
        return math.inf
    except ValueError:
        return math.nan if base else math.inf


def _multiplied(base: float, exponent: float) -> float:
    """Multiply as Go's math.Pow: by squaring, the mantissa apart, so that the last digits are the same."""
    rest, whole_part = math.modf(abs(exponent))
    if rest and base < 0:
        return math.nan
    result, power = 1.0, 0
    if rest:
        if rest > 0.5:
            rest, whole_part = rest - 1, whole_part + 1
        result = math.exp(rest * math.log(base))
    mantissa, binary = math.frexp(base)
    count = int(whole_part)
    while count:
        if not -(1 << 12) < binary < 1 << 12:
            power += binary
            break
        if count & 1:
            result, power = result * mantissa, power + binary
        mantissa, binary = mantissa * mantissa, binary << 1
        if mantissa < 0.5:
            mantissa, binary = mantissa + mantissa, binary - 1
        count >>= 1
    if exponent < 0:
        result, power = 1 / result, -power
    try:
        return math.ldexp(result, power)
    except OverflowError:
        return math.copysign(math.inf, result)


def _remainder(left: Any, right: Any) -> int:
    if isinstance(left, float) or isinstance(right, float):
        raise ExpressionError("", f"invalid operation: {kind(left)} % {kind(right)}")
    if right == 0:
        raise ExpressionError("", "integer divide by zero")
    rest: int = abs(left) % abs(right)
    return -rest if left < 0 else rest


def fetched(source: Any, key: Any) -> Any:
    """Take a map's entry (nil when it has none) or a list's item. Raises ExpressionError where there is none."""
    if isinstance(source, Mapping):
        if not isinstance(key, (str, int, float, bool, type(None))):
            raise ExpressionError("", f"cannot use {kind(key)} as a key")
        return source.get(key)
    if isinstance(source, (list, tuple, str)):
        if not is_number(key):
            raise ExpressionError("", f"cannot fetch {key} from {kind(source)}")
        row: Any = source.encode() if isinstance(source, str) else source
        index = whole(key)
        index += len(row) if index < 0 else 0
        if not 0 <= index < len(row):
            raise ExpressionError("", f"index out of range: {index} (array length is {len(row)})")
        return row[index]
    raise ExpressionError("", f"cannot fetch {key} from {kind(source)}")


def sliced(source: Any, start: Any, end: Any) -> Any:
    """Take a part of a list or, by bytes, of a text."""
    if not isinstance(source, (list, tuple, str)):
        raise ExpressionError("", f"cannot slice {kind(source)}")
    plain = isinstance(source, str) and source.isascii()
    row: Any = source if plain or not isinstance(source, str) else source.encode()
    first = 0 if start is None else whole(start)
    last = len(row) if end is None else whole(end)
    first = max(first + len(row), 0) if first < 0 else first
    last = max(last + len(row), 0) if last < 0 else min(last, len(row))
    part = row[min(first, last) : last]
    return part.decode(errors="replace") if isinstance(part, bytes) else part


def contains(needle: Any, container: Any) -> bool:
    """Say whether a list holds a value, or a map a key. Raises ExpressionError for other values."""
    if container is None:
        return False
    if isinstance(container, Mapping):
        return isinstance(needle, (str, int, float, bool, type(None))) and needle in container
    if isinstance(container, (list, tuple)):
        return any(equal(item, needle) for item in container)
    raise ExpressionError("", f'operator "in" not defined on {kind(container)}')
