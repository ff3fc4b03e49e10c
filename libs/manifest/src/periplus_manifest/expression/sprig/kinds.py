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


def _kind(given: Any) -> str:
    found = value.kind(given)
    return "ptr" if found == "Version" else _KINDS.get(found, found)


def _type(given: Any) -> str:
    if isinstance(given, AnyKeyed):
        return "map[interface {}]interface {}"
    found = value.kind(given)
    return _TYPES.get(found, found)


@declare(TABLE, "kindOf", ANY)
def _kind_of(_: Budget, given: Any) -> str:
    return _kind(given)


@declare(TABLE, "kindIs", TEXT, ANY)
def _kind_is(_: Budget, wanted: str, given: Any) -> bool:
    return wanted == _kind(given)


@declare(TABLE, "typeOf", ANY)
def _type_of(_: Budget, given: Any) -> str:
    return _type(given)


@declare(TABLE, "typeIs", TEXT, ANY)
def _type_is(_: Budget, wanted: str, given: Any) -> bool:
    return wanted == _type(given)


@declare(TABLE, "typeIsLike", TEXT, ANY)
def _type_is_like(_: Budget, wanted: str, given: Any) -> bool:
    return _type(given) in (wanted, f"*{wanted}")


@declare(TABLE, "deepEqual", ANY, ANY)
def _deep_equal(budget: Budget, left: Any, right: Any) -> bool:
    budget.weigh(left)
    budget.weigh(right)
    return value.same(left, right)


def empty(given: Any) -> bool:
    """Say whether a value counts as not given: nil, 0, false, or without content."""
    return (
        given is None
        or given is False
        or (value.is_number(given) and given == 0)
        or given in ("", [], {}, ())
    )


@declare(TABLE, "empty", ANY)
def _empty(_: Budget, given: Any) -> bool:
    return empty(given)


@declare(TABLE, "default", ANY, ANY, least=1)
def _default(_: Budget, fallback: Any, given: Any = None) -> Any:
    return fallback if empty(given) else given


@declare(TABLE, "coalesce", more=ANY)
def _coalesce(_: Budget, *given: Any) -> Any:
    return next((item for item in given if not empty(item)), None)


@declare(TABLE, "all", more=ANY)
def _all(_: Budget, *given: Any) -> bool:
    return not any(empty(item) for item in given)


@declare(TABLE, "any", more=ANY)
def _any(_: Budget, *given: Any) -> bool:
    return any(not empty(item) for item in given)


@declare(TABLE, "ternary", ANY, ANY, BOOL)
def _ternary(_: Budget, yes: Any, no: Any, condition: bool) -> Any:
    return yes if condition else no
