"""sprig's functions on maps, and its JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from periplus_manifest import gotext
from periplus_manifest.errors import ExpressionError
from periplus_manifest.expression.budget import Budget
from periplus_manifest.expression.builtin.values import from_json
from periplus_manifest.expression.function import ANY, MAP, TEXT, Table, declare, declare_both

from .kinds import empty

TABLE: Table = {}


@declare(TABLE, "mustFromJson", TEXT)
def _must_from_json(budget: Budget, text: str) -> Any:
    return from_json(budget, text)


@declare(TABLE, "fromJson", TEXT)
def _from_json(budget: Budget, text: str) -> Any:
    try:
        return from_json(budget, text)
    except ExpressionError:
        return None


@declare_both(TABLE, "toJson", ANY)
def _to_json(budget: Budget, argument: Any) -> str:
    return _json(budget, argument, "")


@declare_both(TABLE, "toPrettyJson", ANY)
def _to_pretty_json(budget: Budget, argument: Any) -> str:
    return _json(budget, argument, "  ")


@declare_both(TABLE, "toRawJson", ANY)
def _to_raw_json(budget: Budget, argument: Any) -> str:
    return _json(budget, argument, "", html=False)


def _json(budget: Budget, argument: Any, indent: str, *, html: bool = True) -> str:
    try:
        return budget.text(gotext.json_text(budget.measure(argument), indent=indent, html=html))
    except ExpressionError:
        raise
    except ValueError as error:
        raise ExpressionError("", str(error)) from None


@declare(TABLE, "dict", variadic=ANY)
def _dict(_: Budget, *arguments: Any) -> dict[str, Any]:
    keys = [gotext.display(key) for key in arguments[::2]]
    return dict(zip(keys, (*arguments[1::2], "") if len(arguments) % 2 else arguments[1::2], strict=True))


@declare(TABLE, "get", MAP, TEXT)
def _get(_: Budget, argument: Mapping[str, Any], key: str) -> Any:
    return argument.get(key, "")


@declare(TABLE, "hasKey", MAP, TEXT)
def _has_key(_: Budget, argument: Mapping[str, Any], key: str) -> bool:
    return key in argument


@declare(TABLE, "keys", variadic=MAP)
def _keys(_: Budget, *arguments: Mapping[str, Any]) -> list[str]:
    return [key for each in arguments for key in sorted(each, key=str)]


@declare(TABLE, "values", MAP)
def _values(_: Budget, argument: Mapping[str, Any]) -> list[Any]:
    return [argument[key] for key in sorted(argument, key=str)]


@declare(TABLE, "pluck", TEXT, variadic=MAP)
def _pluck(_: Budget, key: str, *arguments: Mapping[str, Any]) -> list[Any]:
    return [each[key] for each in arguments if key in each]


@declare(TABLE, "pick", MAP, variadic=TEXT)
def _pick(_: Budget, argument: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: argument[key] for key in keys if key in argument}


@declare(TABLE, "omit", MAP, variadic=TEXT)
def _omit(budget: Budget, argument: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    budget.allocate(len(argument))
    return {key: item for key, item in argument.items() if key not in keys}


@declare_both(TABLE, "merge", MAP, variadic=MAP)
def _merge(budget: Budget, first: Mapping[str, Any], *others: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(first)
    for other in others:
        merged = _merged(budget, merged, other, over=False, depth=0)
    return merged


@declare_both(TABLE, "mergeOverwrite", MAP, variadic=MAP)
def _merge_overwrite(budget: Budget, first: Mapping[str, Any], *others: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(first)
    for other in others:
        merged = _merged(budget, merged, other, over=True, depth=0)
    return merged


def _merged(
    budget: Budget, into: Mapping[str, Any], other: Mapping[str, Any], *, over: bool, depth: int
) -> dict[str, Any]:
    if depth > 50:
        raise ExpressionError("", "maps nested too deeply to merge")
    budget.allocate(len(into) + len(other))
    budget.step(len(other))
    merged = dict(into)
    for key, item in other.items():
        old = merged.get(key)
        if isinstance(old, Mapping) and isinstance(item, Mapping):
            merged[key] = _merged(budget, old, item, over=over, depth=depth + 1)
        elif empty(old) or (over and not empty(item)):
            merged[key] = item
    return merged


@declare(TABLE, "dig", TEXT, variadic=ANY)
def _dig(_: Budget, first: str, *arguments: Any) -> Any:
    *keys, fallback, current = (first, *arguments) if len(arguments) > 1 else ("", "", "")
    if not keys or not isinstance(current, Mapping) or not all(isinstance(key, str) for key in keys):
        raise ExpressionError("", "sprig.dig takes keys, a default and a map")
    for key in keys:
        if not isinstance(current, Mapping) or key not in current:
            return fallback
        current = current[key]
    return current


@declare_both(TABLE, "deepCopy", ANY)
def _deep_copy(_: Budget, argument: Any) -> Any:
    # No function changes its arguments, so the value itself serves as its copy.
    if argument is None:
        raise ExpressionError("", "sprig.deepCopy takes no nil")
    return argument


@declare(TABLE, "set", MAP, TEXT, ANY)
def _set(budget: Budget, arguments: Mapping[str, Any], key: str, item: Any) -> dict[str, Any]:
    budget.allocate(len(arguments) + 1)
    return {**arguments, key: item}


@declare(TABLE, "unset", MAP, TEXT)
def _unset(budget: Budget, argument: Mapping[str, Any], key: str) -> dict[str, Any]:
    budget.allocate(len(argument))
    return {each: item for each, item in argument.items() if each != key}
