"""sprig's tests of a value: its kind and type, whether it is empty, and defaults for an empty one."""

from __future__ import annotations

from typing import Any

from periplus_manifest.expression import value
from periplus_manifest.expression.budget import Budget
from periplus_manifest.expression.function import ANY, BOOL, TEXT, Table, declare
from periplus_manifest.gotext import AnyKeyed

TABLE: Table = {}

_KINDS = {"nil": "invalid", "array": "slice", "float": "float64", "time": "struct", "duration": "int64"}
_TYPES = {
    "nil": "<nil>",
    "array": "[]interface {}",
    "float": "float64",
    "map": "map[string]interface {}",
    "time": "time.Time",
    "duration": "time.Duration",
    "Version": "*semver.Version",
}


def _kind(argument: Any) -> str:
    found = value.kind(argument)
    return "ptr" if found == "Version" else _KINDS.get(found, found)


def _type(argument: Any) -> str:
    if isinstance(argument, AnyKeyed):
        return "map[interface {}]interface {}"
    found = value.kind(argument)
    return _TYPES.get(found, found)


@declare(TABLE, "kindOf", ANY)
def _kind_of(_: Budget, argument: Any) -> str:
    return _kind(argument)


@declare(TABLE, "kindIs", TEXT, ANY)
def _kind_is(_: Budget, wanted: str, argument: Any) -> bool:
    return wanted == _kind(argument)


@declare(TABLE, "typeOf", ANY)
def _type_of(_: Budget, argument: Any) -> str:
    return _type(argument)


@declare(TABLE, "typeIs", TEXT, ANY)
def _type_is(_: Budget, wanted: str, argument: Any) -> bool:
    return wanted == _type(argument)


@declare(TABLE, "typeIsLike", TEXT, ANY)
def _type_is_like(_: Budget, wanted: str, argument: Any) -> bool:
    return _type(argument) in (wanted, f"*{wanted}")


@declare(TABLE, "deepEqual", ANY, ANY)
def _deep_equal(budget: Budget, left: Any, right: Any) -> bool:
    budget.measure(left)
    budget.measure(right)
    return value.same(left, right)


def empty(argument: Any) -> bool:
    """Say whether a value is empty to sprig: nil, 0, false, or without content."""
    return (
        argument is None
        or argument is False
        or (value.is_number(argument) and argument == 0)
        or argument in ("", [], {}, ())
    )


@declare(TABLE, "empty", ANY)
def _empty(_: Budget, argument: Any) -> bool:
    return empty(argument)


@declare(TABLE, "default", ANY, ANY, required=1)
def _default(_: Budget, fallback: Any, argument: Any = None) -> Any:
    return fallback if empty(argument) else argument


@declare(TABLE, "coalesce", variadic=ANY)
def _coalesce(_: Budget, *arguments: Any) -> Any:
    return next((item for item in arguments if not empty(item)), None)


@declare(TABLE, "all", variadic=ANY)
def _all(_: Budget, *arguments: Any) -> bool:
    return not any(empty(item) for item in arguments)


@declare(TABLE, "any", variadic=ANY)
def _any(_: Budget, *arguments: Any) -> bool:
    return any(not empty(item) for item in arguments)


@declare(TABLE, "ternary", ANY, ANY, BOOL)
def _ternary(_: Budget, yes: Any, no: Any, condition: bool) -> Any:
    return yes if condition else no
