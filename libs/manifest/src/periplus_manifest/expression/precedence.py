"""Groups a flat sequence of operands and operators by expr-lang's precedences (precedence climbing)."""

from __future__ import annotations

from collections.abc import Sequence as Items
from dataclasses import dataclass

from periplus_manifest.errors import ExpressionError

from .tree import Call, Comparison, Infix, Node, OperatorChain, PipedValue, Prefix

MAX_NESTING = 60

_BINARY_PRECEDENCE = {
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
_PREFIX_PRECEDENCE = {"not": 50, "!": 50, "-": 90, "+": 90}
_RIGHT_ASSOCIATIVE = frozenset(("**", "^"))
_COMPARISONS = frozenset(("<", ">", "<=", ">="))
_NEGATABLE = frozenset(("in", "matches", "contains", "startsWith", "endsWith"))


@dataclass(frozen=True, slots=True)
class Operator:
    """An infix operator."""

    sign: str
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Sign:
    """A prefix operator."""

    sign: str


@dataclass(frozen=True, slots=True)
class Pipe:
    """| f(arguments)."""

    call: Call


Item = Node | Operator | Sign | Pipe


def group(items: Items[Item]) -> Node:
    """Build the tree. Raises ExpressionError where another operator follows ?? without parentheses."""
    return _Grouper(items).level(0, 0)


class _Grouper:
    def __init__(self, items: Items[Item]) -> None:
        self._items = items
        self._position = 0

    def level(self, minimum: int, depth: int) -> Node:
        if depth > MAX_NESTING:
            raise ExpressionError("", "nested too deeply")
        first = self._primary(depth)
        operations: list[Infix] = []
        previous = ""
        while (found := self._operator(minimum)) is not None:
            if isinstance(found, Pipe):
                self._position += 1
                operations.append(Infix("|", found.call, negated=False))
                previous = "|"
                continue
            if previous == "??" and found.sign != "??":
                raise ExpressionError(
                    "", f"operator {found.sign} cannot follow ??; put one of them in parentheses"
                )
            previous = found.sign
            if found.sign in _COMPARISONS:
                left = OperatorChain(first, tuple(operations)) if operations else first
                first, operations = self._comparison(left, depth), []
                continue
            self._position += 1
            level = _BINARY_PRECEDENCE[found.sign] + (0 if found.sign in _RIGHT_ASSOCIATIVE else 1)
            operations.append(Infix(found.sign, self.level(level, depth + 1), negated=found.negated))
        return OperatorChain(first, tuple(operations)) if operations else first

    def _primary(self, depth: int) -> Node:
        item = self._items[self._position]
        self._position += 1
        if isinstance(item, Sign):
            return Prefix(
                "not" if item.sign == "!" else item.sign, self.level(_PREFIX_PRECEDENCE[item.sign], depth + 1)
            )
        assert not isinstance(item, (Operator, Pipe))
        return item

    def _operator(self, minimum: int) -> Operator | Pipe | None:
        if self._position >= len(self._items):
            return None
        item = self._items[self._position]
        if isinstance(item, Pipe):
            return item if minimum == 0 else None
        assert isinstance(item, Operator)
        if item.negated and item.sign not in _NEGATABLE:
            raise ExpressionError("", f"not is not allowed before {item.sign}")
        return item if _BINARY_PRECEDENCE[item.sign] >= minimum else None

    def _comparison(self, first: Node, depth: int) -> Node:
        operations: list[tuple[str, Node]] = []
        while (
            (found := self._operator(20)) is not None
            and isinstance(found, Operator)
            and found.sign in _COMPARISONS
        ):
            self._position += 1
            operations.append((found.sign, self.level(21, depth + 1)))
        return Comparison(first, tuple(operations))


def piped(call: Call) -> Call:
    """Insert the piped value as the first argument of a call."""
    return Call(call.function, (PipedValue(), *call.arguments))
