"""sprig's defaults: what counts as not given, and what to take instead."""

from __future__ import annotations

from typing import Any

from . import value
from .budget import Budget
from .function import ANY, BOOL, Table, declare

TABLE: Table = {}


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
