"""Precedence climbing over a flat row of operands and operators, by expr-lang's own table and rules."""

from __future__ import annotations

from collections.abc import Sequence as Items
from dataclasses import dataclass

from periplus_manifest.errors import ExpressionError

from .tree import Call, Comparison, Infix, Node, Piped, Prefix, Row

DEEPEST = 60

_BINARY = {
    "|": 0,
    "or": 10,
    "||": 10,
    "and": 15,
    "&&": 15,
    **dict.fromkeys(
        ("==", "!=", "<", ">", ">=", "<=", "in", "matches", "contains", "startsWith", "endsWith"), 20
    ),
    "..": 25,
    **dict.fromkeys(("+", "-"), 30),
    **dict.fromkeys(("*", "/", "%"), 60),
    **dict.fromkeys(("**", "^"), 100),
    "??": 500,
}
_PREFIX = {"not": 50, "!": 50, "-": 90, "+": 90}
_RIGHT = frozenset(("**", "^"))
_ORDER = frozenset(("<", ">", "<=", ">="))
_NEGATABLE = frozenset(("in", "matches", "contains", "startsWith", "endsWith"))


@dataclass(frozen=True, slots=True)
class Operator:
    """An infix operator in the row."""

    sign: str
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Sign:
    """A prefix operator in the row."""

    sign: str


@dataclass(frozen=True, slots=True)
class Pipe:
    """| f(arguments) in the row."""

    call: Call


Item = Node | Operator | Sign | Pipe


def climb(items: Items[Item]) -> Node:
    """Group a row. Raises ExpressionError where ?? stands unbracketed before another operator."""
    return _Climber(items).level(0, 0)


class _Climber:
    def __init__(self, items: Items[Item]) -> None:
        self._items = items
        self._position = 0

    def level(self, least: int, depth: int) -> Node:
        if depth > DEEPEST:
            raise ExpressionError("", "nested too deeply")
        first = self._primary(depth)
        rest: list[Infix] = []
        before = ""
        while (found := self._operator(least)) is not None:
            if isinstance(found, Pipe):
                self._position += 1
                rest.append(Infix("|", found.call, negated=False))
                before = "|"
                continue
            if before == "??" and found.sign != "??":
                raise ExpressionError(
                    "", f"operator {found.sign} cannot follow ??; put one of them in parentheses"
                )
            before = found.sign
            if found.sign in _ORDER:
                left = Row(first, tuple(rest)) if rest else first
                first, rest = self._comparison(left, depth), []
                continue
            self._position += 1
            level = _BINARY[found.sign] + (0 if found.sign in _RIGHT else 1)
            rest.append(Infix(found.sign, self.level(level, depth + 1), negated=found.negated))
        return Row(first, tuple(rest)) if rest else first

    def _primary(self, depth: int) -> Node:
        item = self._items[self._position]
        self._position += 1
        if isinstance(item, Sign):
            return Prefix("not" if item.sign == "!" else item.sign, self.level(_PREFIX[item.sign], depth + 1))
        assert not isinstance(item, (Operator, Pipe))
        return item

    def _operator(self, least: int) -> Operator | Pipe | None:
        if self._position >= len(self._items):
            return None
        item = self._items[self._position]
        if isinstance(item, Pipe):
            return item if least == 0 else None
        assert isinstance(item, Operator)
        if item.negated and item.sign not in _NEGATABLE:
            raise ExpressionError("", f"not cannot stand before {item.sign}")
        return item if _BINARY[item.sign] >= least else None

    def _comparison(self, first: Node, depth: int) -> Node:
        rest: list[tuple[str, Node]] = []
        while (
            (found := self._operator(20)) is not None and isinstance(found, Operator) and found.sign in _ORDER
        ):
            self._position += 1
            rest.append((found.sign, self.level(21, depth + 1)))
        return Comparison(first, tuple(rest))


def piped(call: Call) -> Call:
    """Give a call room for what the pipe hands on."""
    return Call(call.function, (Piped(), *call.arguments))
