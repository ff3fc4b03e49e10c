"""The kind of value that a node has, as far as it is certain before the evaluation.

Go compares values of different kinds at run time as unequal, but will not compile a comparison that can never
hold: `len(x) == '3'` is an error there, and must not quietly be false here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import value
from .tree import Array, Call, Comparison, Literal, Map, Name, Node, OperatorChain, Prefix, Ternary

# Functions of the environment that Go declares without a type (asInt, asFloat, jsonpath, sprig) are not here.
_RETURNS = {
    **dict.fromkeys(("len", "int", "indexOf", "lastIndexOf", "count", "findIndex", "findLastIndex"), "number"),
    **dict.fromkeys(("float", "ceil", "floor", "round", "mean", "median"), "number"),
    **dict.fromkeys(("string", "trim", "trimPrefix", "trimSuffix", "upper", "lower", "replace", "repeat"), "string"),
    **dict.fromkeys(("join", "toJSON", "toJson", "toBase64", "fromBase64", "type"), "string"),
    **dict.fromkeys(("all", "any", "none", "one", "hasPrefix", "hasSuffix"), "bool"),
    **dict.fromkeys(("map", "filter", "split", "splitAfter", "keys", "values", "sort", "concat", "uniq"), "array"),
}  # fmt: skip
_LOGICAL = frozenset(("==", "!=", "in", "contains", "matches", "startsWith", "endsWith"))


def static_kind(node: Node, env: Mapping[str, Any], bound: Mapping[str, Any]) -> str | None:
    """Return the kind of a node's value; None where only the evaluation decides it."""
    if isinstance(node, Literal):
        return _kind(node.value)
    if isinstance(node, Name):
        # In Go the top level of the environment has types, those of its values; deeper levels have none.
        return None if node.name in bound else _kind(env.get(node.name))
    if isinstance(node, Call):
        return _RETURNS.get(node.function)
    if isinstance(node, Comparison) or (isinstance(node, Prefix) and node.operator == "not"):
        return "bool"
    if isinstance(node, Prefix):
        return "number"
    if isinstance(node, OperatorChain):
        return _chain(node, env, bound)
    if isinstance(node, Ternary) and node.yes is not None:
        yes, no = static_kind(node.yes, env, bound), static_kind(node.no, env, bound)
        return yes if yes == no else None
    return "array" if isinstance(node, Array) else "map" if isinstance(node, Map) else None


def _chain(node: OperatorChain, env: Mapping[str, Any], bound: Mapping[str, Any]) -> str | None:
    last = node.operations[-1].operator
    if last in _LOGICAL:
        return "bool"
    if last in ("/", "%", "**", "^"):
        return "number"
    if last in ("+", "-", "*"):
        sides = {
            static_kind(node.first, env, bound),
            *(static_kind(infix.right, env, bound) for infix in node.operations),
        }
        return sides.pop() if len(sides) == 1 else None
    return None


def _kind(found: Any) -> str | None:
    kind = value.kind(found)
    return {"int": "number", "float": "number"}.get(kind, kind) if kind != "nil" else None


def check_bool(node: Node, sign: str, env: Mapping[str, Any], bound: Mapping[str, Any]) -> None:
    """Raise ExpressionError when a side of and or of or can never be true or false."""
    if static_kind(node, env, bound) not in (None, "bool"):
        raise value.mismatch(sign, "bool", static_kind(node, env, bound))


def check_comparable(left: Node, right: Node, env: Mapping[str, Any], bound: Mapping[str, Any]) -> None:
    """Raise ExpressionError when the two sides of == or != can never be equal."""
    kinds = static_kind(left, env, bound), static_kind(right, env, bound)
    if None not in kinds and kinds[0] != kinds[1]:
        raise value.mismatch("==", *kinds)
