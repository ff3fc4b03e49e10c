"""The `when` of a step or task: govaluate's language, after the tags have been replaced."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .conditiontoken import Kind, Token, tokens
from .errors import ConditionError, ManifestError
from .gotext import display

_LARGEST = 1 << 20
_DEEPEST = 30

# From the loosest to the tightest. All of them group from the left.
_LEVELS: tuple[tuple[str, ...], ...] = (
    (",",),
    ("?", ":", "??"),
    ("||",),
    ("&&",),
    ("==", "!=", ">", ">=", "<", "<=", "=~", "!~", "in"),
    ("^", "&", "|"),
    (">>", "<<"),
    ("+", "-"),
    ("*", "/", "%"),
    ("**",),
)
_LEVEL_OF = {operator: level for level, operators in enumerate(_LEVELS) for operator in operators}


@dataclass(frozen=True, slots=True)
class Literal:
    """A number (always a float), a text, a boolean, or a bare word, which Argo takes for a text."""

    value: Any


@dataclass(frozen=True, slots=True)
class Access:
    """A bare word with a dot, which govaluate looks up and never finds."""

    name: str


@dataclass(frozen=True, slots=True)
class Prefixed:
    """-x, !x or ~x."""

    operator: str
    right: Node


@dataclass(frozen=True, slots=True)
class Joined:
    """Operands joined by operators of one level, evaluated from the left."""

    first: Node
    rest: tuple[tuple[str, Node], ...]


Node = Literal | Access | Prefixed | Joined


def evaluate(text: str) -> bool:
    """Decide a `when` in which no tag is left; an empty text is true.

    Bare words are texts (heads == heads), numbers are floats, quoted dates compare as times. Raises
    ConditionError for a text that does not parse, for operands of the wrong kind, and for a value that is
    neither true nor false.
    """
    if text == "":
        return True
    value = _value(parse(text))
    if not isinstance(value, bool):
        raise ConditionError("", f"expected true or false from {_short(text)}, got {display(value)}")
    return value


def parse(text: str) -> Node:
    """Parse a `when` without evaluating it. Raises ConditionError."""
    if len(text) > _LARGEST:
        raise ConditionError("", f"longer than {_LARGEST} characters")
    try:
        reader = _Reader(tokens(text))
        node = reader.level(0, 0)
        reader.end()
    except ConditionError as error:
        raise ConditionError("", f"invalid 'when' expression {_short(text)}: {error.message}") from None
    return node


def _short(text: str) -> str:
    return repr(text if len(text) <= 120 else text[:120] + "…")


class _Reader:
    """Groups the tokens by the levels of their operators."""

    def __init__(self, found: list[Token]) -> None:
        self._tokens = found
        self._position = 0

    def _peek(self) -> Token | None:
        return self._tokens[self._position] if self._position < len(self._tokens) else None

    def level(self, level: int, depth: int) -> Node:
        """Read operands of this level or tighter, by precedence climbing."""
        node = self._operand(depth)
        while (found := self._operator()) is not None and _LEVEL_OF[found] >= level:
            own = _LEVEL_OF[found]
            rest = []
            while (operator := self._operator()) is not None and _LEVEL_OF[operator] == own:
                self._position += 1
                rest.append((operator, self.level(own + 1, depth)))
            node = Joined(node, tuple(rest))
        return node

    def _operator(self) -> str | None:
        token = self._peek()
        if token is None or token.kind not in (Kind.OPERATOR, Kind.TERNARY, Kind.SEPARATOR):
            return None
        return str(token.value)

    def _operand(self, depth: int) -> Node:
        token = self._peek()
        if depth > _DEEPEST:
            raise ConditionError("", f"nested deeper than {_DEEPEST}")
        if token is None or token.kind in (Kind.CLOSE, Kind.OPERATOR, Kind.TERNARY, Kind.SEPARATOR):
            raise ConditionError("", "a value is missing")
        self._position += 1
        if token.kind is Kind.OPEN:
            node = self.level(0, depth + 1)
            closing = self._peek()
            if closing is None or closing.kind is not Kind.CLOSE:
                raise ConditionError("", "unbalanced parenthesis")
            self._position += 1
            return node
        if token.kind is Kind.PREFIX:
            return Prefixed(str(token.value), self._operand(depth + 1))
        return Access(str(token.value)) if token.kind is Kind.ACCESS else Literal(token.value)

    def end(self) -> None:
        if (token := self._peek()) is not None:
            raise ConditionError("", f"unexpected {token.value!r}")


def _value(node: Node) -> Any:
    if isinstance(node, Literal):
        return node.value
    if isinstance(node, Access):
        raise ConditionError("", f"no parameter '{node.name}' found; a text with a dot needs quotes")
    if isinstance(node, Prefixed):
        return _prefixed(node.operator, _value(node.right))
    value = _value(node.first)
    for operator, right in node.rest:
        value = _lazy(operator, value, right) if operator in _LAZY else _OPERATORS[operator](value, _value(right))
    return value


_LAZY = frozenset(("&&", "||", "?", ":", "??"))


def _lazy(operator: str, left: Any, right: Node) -> Any:
    if operator in ("&&", "||"):
        if isinstance(left, bool) and left is (operator == "||"):
            return left
        value = _value(right)
        for side in (left, value):
            _wants(isinstance(side, bool), side, operator, "a bool")
        return value
    if operator == "?":
        _wants(isinstance(left, bool), left, operator, "a bool")
        return _value(right) if left else None
    return left if left is not None else _value(right)


def _wants(fits: bool, value: Any, operator: str, what: str) -> None:
    if not fits:
        raise ConditionError("", f"value '{display(value)[:80]}' cannot be used with '{operator}', it is not {what}")


def _prefixed(operator: str, value: Any) -> Any:
    if operator == "!":
        _wants(isinstance(value, bool), value, "!", "a bool")
        return not value
    _wants(isinstance(value, float), value, operator, "a number")
    return -value if operator == "-" else float(~_int64(value))


def _same(left: Any, right: Any) -> bool:
    return type(left) is type(right) and bool(left == right)


def _ordered(operator: str, holds: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def compare(left: Any, right: Any) -> bool:
        texts = isinstance(left, str) and isinstance(right, str)
        if not texts:
            for side in (left, right):
                _wants(isinstance(side, float), side, operator, "a number")
        return holds(left, right)

    return compare


def _matching(operator: str) -> Callable[[Any, Any], bool]:
    def match(left: Any, right: Any) -> bool:
        for side in (left, right):
            _wants(isinstance(side, str), side, operator, "a text")
        from . import regex

        try:
            return regex.compile(right).search(left) is (operator == "=~")
        except ManifestError as error:
            raise ConditionError("", error.message) from None

    return match


def _within(left: Any, right: Any) -> bool:
    _wants(isinstance(right, tuple), right, "in", "a list such as (a, b)")
    return any(_same(left, each) for each in right)


def _added(left: Any, right: Any) -> Any:
    if isinstance(left, str) or isinstance(right, str):
        return display(left) + display(right)
    for side in (left, right):
        _wants(isinstance(side, float), side, "+", "a number")
    return left + right


def _number(operator: str, compute: Callable[[float, float], float]) -> Callable[[Any, Any], float]:
    def apply(left: Any, right: Any) -> float:
        for side in (left, right):
            _wants(isinstance(side, float), side, operator, "a number")
        try:
            return float(compute(left, right))
        except (ArithmeticError, ValueError):
            return math.nan

    return apply


def _divided(left: float, right: float) -> float:
    if right == 0:
        return math.nan if left == 0 or left != left else math.copysign(math.inf, left) * math.copysign(1, right)
    return left / right


def _int64(value: float) -> int:
    if not math.isfinite(value):
        return -(1 << 63)
    return max(min(int(value), (1 << 63) - 1), -(1 << 63))


def _shifted(value: float, by: float) -> float:
    places = _int64(by)
    return float((_int64(value) << places) & ((1 << 64) - 1)) if 0 <= places < 64 else 0.0


def _listed(left: Any, right: Any) -> tuple[Any, ...]:
    return (*left, right) if isinstance(left, tuple) else (left, right)


_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    ",": _listed,
    "==": _same,
    "!=": lambda left, right: not _same(left, right),
    ">": _ordered(">", lambda left, right: left > right),
    ">=": _ordered(">=", lambda left, right: left >= right),
    "<": _ordered("<", lambda left, right: left < right),
    "<=": _ordered("<=", lambda left, right: left <= right),
    "=~": _matching("=~"),
    "!~": _matching("!~"),
    "in": _within,
    "+": _added,
    "-": _number("-", lambda left, right: left - right),
    "*": _number("*", lambda left, right: left * right),
    "/": _number("/", _divided),
    "%": _number("%", math.fmod),
    "**": _number("**", math.pow),
    "&": _number("&", lambda left, right: _int64(left) & _int64(right)),
    "|": _number("|", lambda left, right: _int64(left) | _int64(right)),
    "^": _number("^", lambda left, right: _int64(left) ^ _int64(right)),
    "<<": _number("<<", _shifted),
    ">>": _number(">>", lambda left, right: _int64(left) >> min(max(_int64(right), 0), 64)),
}
