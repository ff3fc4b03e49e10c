"""The functions that expr-lang itself has, and Argo's own four: asInt, asFloat, toJson and jsonpath."""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Mapping
from typing import Any

from .. import gotext
from ..errors import ExpressionError
from . import jsonpath, value
from .budget import Budget
from .function import ANY, LIST, MAP, NUMBER, TEXT, WHOLE, Table, declare

TABLE: Table = {}

_DECIMAL = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?", re.ASCII)


@declare(TABLE, "len", ANY)
def _len(_: Budget, given: Any) -> int:
    if not isinstance(given, (str, list, tuple, Mapping)):
        raise ExpressionError("", f"invalid argument for len (type {value.kind(given)})")
    return len(given)


@declare(TABLE, "type", ANY)
def _type(_: Budget, given: Any) -> str:
    return value.kind(given)


@declare(TABLE, "abs", NUMBER)
def _abs(_: Budget, number: Any) -> Any:
    return abs(number)


@declare(TABLE, "ceil", NUMBER)
def _ceil(_: Budget, number: Any) -> float:
    return float(math.ceil(number)) if math.isfinite(number) else number


@declare(TABLE, "floor", NUMBER)
def _floor(_: Budget, number: Any) -> float:
    return float(math.floor(number)) if math.isfinite(number) else number


@declare(TABLE, "round", NUMBER)
def _round(_: Budget, number: Any) -> float:
    return math.copysign(math.floor(abs(number) + 0.5), number) if math.isfinite(number) else number


@declare(TABLE, "int", ANY)
@declare(TABLE, "asInt", ANY)
def as_int(_: Budget, given: Any) -> int:
    """Give a number or a text as an int; a text must be a whole number."""
    if isinstance(given, str):
        if not re.fullmatch(r"[-+]?[0-9]{1,19}", given, re.ASCII) or value.wrapped(int(given)) != int(given):
            raise ExpressionError("", f"invalid operation: int({given[:60]})")
        return int(given)
    return value.whole(given)


@declare(TABLE, "float", ANY)
@declare(TABLE, "asFloat", ANY)
def as_float(_: Budget, given: Any) -> float:
    """Give a number or a text as a float."""
    if isinstance(given, str):
        if not _DECIMAL.fullmatch(given) or float(given) in (math.inf, -math.inf):
            raise ExpressionError("", f"invalid operation: float({given[:60]})")
        return float(given)
    if not value.is_number(given):
        raise ExpressionError("", f"invalid operation: float({value.kind(given)})")
    return float(given)


@declare(TABLE, "string", ANY)
def _string(budget: Budget, given: Any) -> str:
    return budget.text(gotext.display(budget.weigh(given)))


@declare(TABLE, "toJSON", ANY)
def _to_json_indented(budget: Budget, given: Any) -> str:
    return _json(budget, given, "  ")


@declare(TABLE, "toJson", ANY)
def _to_json(budget: Budget, given: Any) -> str:
    return _json(budget, given, "")


def _json(budget: Budget, given: Any, indent: str) -> str:
    try:
        return budget.text(gotext.json_text(budget.weigh(given), indent=indent))
    except ValueError as error:
        if isinstance(error, ExpressionError):
            raise
        raise ExpressionError("", str(error)) from None


@declare(TABLE, "fromJSON", TEXT)
def from_json(budget: Budget, text: str) -> Any:
    """Parse JSON; every number is a float, as in Go."""
    if text in budget.parsed:
        return budget.parsed[text]
    budget.room(len(text))
    budget.step(len(text) >> 6)
    try:
        found = json.loads(text, parse_int=float, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise ExpressionError("", f"not JSON: {text[:60]!r}: {error}") from None
    budget.parsed[text] = found
    return found


def _refuse(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")


@declare(TABLE, "jsonpath", TEXT, TEXT)
def _jsonpath(budget: Budget, text: str, path: str) -> Any:
    return jsonpath.query(budget, from_json(budget, text), path)


@declare(TABLE, "toBase64", TEXT)
def _to_base64(budget: Budget, text: str) -> str:
    return budget.text(base64.b64encode(text.encode()).decode())


@declare(TABLE, "fromBase64", TEXT)
def _from_base64(budget: Budget, text: str) -> str:
    try:
        return budget.text(base64.b64decode(text, validate=True).decode(errors="replace"))
    except ValueError:
        raise ExpressionError("", f"not base64: {text[:60]!r}") from None


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
    return max(_numbers("max", given, budget), default=None)


@declare(TABLE, "min", more=ANY)
def _min(budget: Budget, *given: Any) -> Any:
    return min(_numbers("min", given, budget), default=None)


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
def _from_pairs(budget: Budget, given: list[Any]) -> gotext.AnyKeyed:
    budget.step(len(given))
    for pair in given:
        if not isinstance(pair, (list, tuple)) or len(pair) != 2 or isinstance(pair[0], (list, tuple, Mapping)):
            raise ExpressionError("", "invalid pair for fromPairs")
    return gotext.AnyKeyed((pair[0], pair[1]) for pair in given)


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


@declare(TABLE, "sort", LIST, TEXT, least=1)
def _sort(budget: Budget, given: list[Any], order: str = "asc") -> list[Any]:
    return ordered(budget, list(given), list(given), order)


def ordered(budget: Budget, items: list[Any], keys: list[Any], order: str) -> list[Any]:
    """Sort items by their keys, which are all numbers or all texts, "asc" or "desc"."""
    if order not in ("asc", "desc"):
        raise ExpressionError("", f"invalid order {order[:40]}, expected asc or desc")
    budget.room(len(items))
    budget.step(len(items) * 4)
    for before, after in zip(keys, keys[1:], strict=False):
        value.less(before, after)
    pairs = sorted(zip(keys, range(len(items)), strict=True), key=lambda pair: pair[0], reverse=order == "desc")
    return [items[place] for _, place in pairs]


def _bits(name: str, compute: Any) -> None:
    @declare(TABLE, name, WHOLE, WHOLE)
    def _(_: Budget, left: int, right: int) -> int:
        if "sh" in name and right < 0:
            raise ExpressionError("", f"negative shift count {right}")
        return value.wrapped(compute(left, right))


_bits("bitand", lambda left, right: left & right)
_bits("bitor", lambda left, right: left | right)
_bits("bitxor", lambda left, right: left ^ right)
_bits("bitnand", lambda left, right: left & ~right)
_bits("bitshl", lambda left, right: left << right if right < 64 else 0)
_bits("bitshr", lambda left, right: left >> min(right, 64))
_bits("bitushr", lambda left, right: (left % (1 << 64)) >> min(right, 64))


@declare(TABLE, "bitnot", WHOLE)
def _bitnot(_: Budget, number: int) -> int:
    return ~number
