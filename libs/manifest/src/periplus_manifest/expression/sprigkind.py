"""sprig's questions about what kind of value it was given."""

from __future__ import annotations

from typing import Any

from periplus_manifest.gotext import AnyKeyed

from . import value
from .budget import Budget
from .function import ANY, TEXT, Table, declare

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
