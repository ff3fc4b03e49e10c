"""The functions on single values that expr-lang itself has, and Argo's own: asInt, asFloat, toJson, jsonpath."""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Mapping
from typing import Any

from periplus_manifest import gotext
from periplus_manifest.errors import ExpressionError
from periplus_manifest.expression import jsonpath, value
from periplus_manifest.expression.budget import Budget
from periplus_manifest.expression.function import ANY, NUMBER, TEXT, WHOLE, Table, declare

TABLE: Table = {}

_DECIMAL = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?", re.ASCII)


@declare(TABLE, "len", ANY)
def _len(_: Budget, argument: Any) -> int:
    if not isinstance(argument, (str, list, tuple, Mapping)):
        raise ExpressionError("", f"invalid argument for len (type {value.kind(argument)})")
    return len(argument)


@declare(TABLE, "type", ANY)
def _type(_: Budget, argument: Any) -> str:
    return value.kind(argument)


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
def as_int(_: Budget, argument: Any) -> int:
    """Return a number or a text as an int; a text must be a whole number."""
    if isinstance(argument, str):
        if not re.fullmatch(r"[-+]?[0-9]{1,19}", argument, re.ASCII) or value.wrapped(int(argument)) != int(
            argument
        ):
            raise ExpressionError("", f"invalid operation: int({argument[:60]})")
        return int(argument)
    return value.whole(argument)


@declare(TABLE, "float", ANY)
@declare(TABLE, "asFloat", ANY)
def as_float(_: Budget, argument: Any) -> float:
    """Return a number or a text as a float."""
    if isinstance(argument, str):
        if (
            len(argument) > 400
            or not _DECIMAL.fullmatch(argument)
            or float(argument) in (math.inf, -math.inf)
        ):
            raise ExpressionError("", f"invalid operation: float({argument[:60]})")
        return float(argument)
    if not value.is_number(argument):
        raise ExpressionError("", f"invalid operation: float({value.kind(argument)})")
    return float(argument)


@declare(TABLE, "string", ANY)
def _string(budget: Budget, argument: Any) -> str:
    return budget.text(gotext.display(budget.measure(argument)))


@declare(TABLE, "toJSON", ANY)
def _to_json_indented(budget: Budget, argument: Any) -> str:
    return _json(budget, argument, "  ")


@declare(TABLE, "toJson", ANY)
def _to_json(budget: Budget, argument: Any) -> str:
    return _json(budget, argument, "")


def _json(budget: Budget, argument: Any, indent: str) -> str:
    try:
        return budget.text(gotext.json_text(budget.measure(argument), indent=indent))
    except ValueError as error:
        if isinstance(error, ExpressionError):
            raise
        raise ExpressionError("", str(error)) from None


@declare(TABLE, "fromJSON", TEXT)
def from_json(budget: Budget, text: str) -> Any:
    """Parse JSON; every number is a float, as in Go."""
    if text in budget.parsed_json:
        return budget.parsed_json[text]
    budget.allocate(len(text))
    budget.step(len(text) >> 6)
    try:
        found = json.loads(text, parse_int=float, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise ExpressionError("", f"not JSON: {text[:60]!r}: {error}") from None
    budget.parsed_json[text] = found
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
