"""The `when` of a step or task: govaluate's language, after the tags have been replaced."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from periplus_manifest.errors import ConditionError
from periplus_manifest.gotext import display

from .operator import OPERATORS, check_operand, matches, prefixed
from .token import Kind, Token, tokens

_MAX_CHARACTERS = 1 << 20
_MAX_NESTING = 30
_MAX_REGEX_STEPS = 1_000_000

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
    """A bare word with a dot: a parameter to govaluate, and Argo passes none."""

    name: str


@dataclass(frozen=True, slots=True)
class Prefixed:
    """-x, !x or ~x."""

    operator: str
    right: Node


@dataclass(frozen=True, slots=True)
class OperatorChain:
    """Operands joined by operators of one level, evaluated from the left."""

    first: Node
    operations: tuple[tuple[str, Node], ...]


Node = Literal | Access | Prefixed | OperatorChain


def evaluate(text: str) -> bool:
    """Decide a `when` in which no tag is left; an empty text is true.

    Bare words are texts (heads == heads), numbers are floats, quoted dates compare as times. Raises
    ConditionError for a text that does not parse, for operands of the wrong kind, and for a value that is
    neither true nor false.
    """
    if text == "":
        return True
    value = _Evaluation().value(parse(text))
    if not isinstance(value, bool):
        raise ConditionError("", f"expected true or false from {_short(text)}, got {display(value)}")
    return value


def parse(text: str) -> Node:
    """Parse a `when` without evaluating it. Raises ConditionError."""
    if len(text) > _MAX_CHARACTERS:
        raise ConditionError("", f"longer than {_MAX_CHARACTERS} characters")
    try:
        parser = _Parser(tokens(text))
        node = parser.level(0, 0)
        parser.end()
    except ConditionError as error:
        raise ConditionError("", f"invalid 'when' expression {_short(text)}: {error.message}") from None
    return node


def _short(text: str) -> str:
    return repr(text if len(text) <= 120 else text[:120] + "…")


class _Parser:
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
            operations = []
            while (operator := self._operator()) is not None and _LEVEL_OF[operator] == own:
                self._position += 1
                operations.append((operator, self.level(own + 1, depth)))
            node = OperatorChain(node, tuple(operations))
        return node

    def _operator(self) -> str | None:
        token = self._peek()
        if token is None or token.kind not in (Kind.OPERATOR, Kind.TERNARY, Kind.SEPARATOR):
            return None
        return str(token.value)

    def _operand(self, depth: int) -> Node:
        token = self._peek()
        if depth > _MAX_NESTING:
            raise ConditionError("", f"nested deeper than {_MAX_NESTING}")
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


class _Evaluation:
    """Evaluates a condition's tree, and counts the steps of its regular expressions."""

    def __init__(self) -> None:
        self._steps = 0

    def value(self, node: Node) -> Any:
        if isinstance(node, Literal):
            return node.value
        if isinstance(node, Access):
            raise ConditionError("", f"no parameter '{node.name}' found; a text with a dot needs quotes")
        if isinstance(node, Prefixed):
            return prefixed(node.operator, self.value(node.right))
        value = self.value(node.first)
        for operator, right in node.operations:
            if operator in _LAZY:
                value = self._lazy(operator, value, right)
            elif operator in ("=~", "!~"):
                value = matches(operator, value, self.value(right), self._spend)
            else:
                value = OPERATORS[operator](value, self.value(right))
        return value

    def _lazy(self, operator: str, left: Any, right: Node) -> Any:
        if operator in ("&&", "||"):
            if isinstance(left, bool) and left is (operator == "||"):
                return left
            value = self.value(right)
            for side in (left, value):
                check_operand(isinstance(side, bool), side, operator, "a bool")
            return value
        if operator == "?":
            check_operand(isinstance(left, bool), left, operator, "a bool")
            return self.value(right) if left else None
        return left if left is not None else self.value(right)

    def _spend(self, steps: int) -> None:
        self._steps += steps
        if self._steps > _MAX_REGEX_STEPS:
            raise ConditionError("", f"its regular expressions take more than {_MAX_REGEX_STEPS} steps")


_LAZY = frozenset(("&&", "||", "?", ":", "??"))
