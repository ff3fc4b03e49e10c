"""From an expression's text to its tree, by the grammar in expr.lark."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import Any

from periplus_manifest.errors import ExpressionError

from .builtin.predicates import PREDICATES
from .precedence import Item, Operator, Pipe, Sign, group, piped
from .tree import (
    Array,
    Call,
    Closure,
    Let,
    Literal,
    Map,
    Member,
    Method,
    Name,
    Node,
    Path,
    Pointer,
    Sequence,
    Slice,
    Ternary,
)

MAX_EXPRESSION_CHARACTERS = 16 * 1024
_MAX_NESTING = 120
_MAX_TOKENS = 10_000
_TOKEN = re.compile(r"\w+|[^\w\s]")

_SIMPLE = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"} | {
    c: c for c in "\\'\"`?"
}
_ESCAPE = re.compile(
    r"\\(?:u\{(?P<braced>[0-9a-fA-F]{1,6})\}|[xX](?P<two>[0-9a-fA-F]{2})|u(?P<four>[0-9a-fA-F]{4})"
    r"|U(?P<eight>[0-9a-fA-F]{8})|(?P<octal>[0-3][0-7]{2})|(?P<simple>[abfnrtv\\'\"`?])|(?P<other>.?))",
    re.DOTALL,
)

_CONSTANTS: dict[str, Any] = {"true": True, "false": False, "nil": None}


@cache
def _parser() -> Any:
    # Importing lark and building its tables takes 0.1 s, once in a process.
    from importlib.resources import files

    from lark import Lark

    grammar = (files(__package__) / "expr.lark").read_text(encoding="utf-8")
    return Lark(grammar, parser="lalr", start="start", maybe_placeholders=False)


def parse(text: str) -> Node:
    """Parse an expression. Raises ExpressionError with the position of the first token that does not fit."""
    if len(text) > MAX_EXPRESSION_CHARACTERS:
        raise ExpressionError("", f"the expression is longer than {MAX_EXPRESSION_CHARACTERS} characters")
    if not text.strip():
        raise ExpressionError("", "the expression is empty")
    if sum(1 for _ in _TOKEN.finditer(text)) > _MAX_TOKENS:
        raise ExpressionError("", f"the expression has more than {_MAX_TOKENS} words and signs")
    from lark.exceptions import LarkError

    try:
        found = _parser().parse(text)
    except LarkError as error:
        raise ExpressionError("", _syntax_error(error, text)) from None
    return _Builder().node(found, 0)


def _syntax_error(error: Any, text: str) -> str:
    position = getattr(error, "pos_in_stream", None)
    ended = getattr(getattr(error, "token", None), "type", "") == "$END"
    if ended or not isinstance(position, int) or not 0 <= position < len(text):
        return f"the expression {_short(text)} ends too early"
    return f"unexpected {text[position : position + 20]!r} at character {position + 1} of {_short(text)}"


def _short(text: str) -> str:
    return repr(text if len(text) <= 100 else text[:100] + "…")


class _Builder:
    """Turns the grammar's tree into ours: one method for each rule, and _TOKENS for single tokens."""

    def node(self, tree: Any, depth: int) -> Node:
        if depth > _MAX_NESTING:
            raise ExpressionError("", "nested too deeply")
        kind = getattr(tree, "type", None)
        if kind is not None:
            return _TOKENS[kind](str(tree))
        built: Node = getattr(self, f"_{tree.data}")(tree.children, depth + 1)
        return built

    def _sequence(self, children: list[Any], depth: int) -> Node:
        return Sequence(tuple(self.node(child, depth) for child in children))

    def _group(self, children: list[Any], depth: int) -> Node:
        return self.node(children[0], depth)

    def _ternary(self, children: list[Any], depth: int) -> Node:
        condition, yes, no = (self.node(child, depth) for child in children)
        return Ternary(condition, yes, no)

    _choice = _ternary

    def _elvis(self, children: list[Any], depth: int) -> Node:
        condition, no = (self.node(child, depth) for child in children)
        return Ternary(condition, None, no)

    def _let(self, children: list[Any], depth: int) -> Node:
        return Let(str(children[0]), self.node(children[1], depth), self.node(children[2], depth))

    def _chain(self, children: list[Any], depth: int) -> Node:
        items: list[Item] = []
        wants_value, negated = True, False
        for child in children:
            kind = getattr(child, "type", None)
            if kind not in _SIGNS:
                items.append(
                    self._pipe(child, depth)
                    if kind is None and child.data == "pipe"
                    else self.node(child, depth)
                )
                wants_value = False
            elif wants_value:
                items.append(Sign(str(child)))
            elif kind == "NOT":
                negated = True
            else:
                items.append(Operator(str(child), negated=negated))
                wants_value, negated = True, False
        return group(items)

    def _pipe(self, tree: Any, depth: int) -> Pipe:
        _check_predicate(str(tree.children[0]), tree.children[1].children[:1])
        return Pipe(piped(Call(str(tree.children[0]), self._arguments(tree.children[1], depth))))

    def _arguments(self, tree: Any, depth: int) -> tuple[Node, ...]:
        return tuple(self.node(child, depth + 1) for child in tree.children)

    def _closure(self, children: list[Any], depth: int) -> Node:
        return Closure(self.node(children[0], depth))

    def _operand(self, children: list[Any], depth: int) -> Node:
        base = self.node(children[0], depth)
        tails = children[1:]
        if isinstance(base, Name) and base.name == "sprig" and tails[0].data == "method":
            name, arguments = tails[0].children
            base, tails = Call(f"sprig.{name}", self._arguments(arguments, depth)), tails[1:]
        steps = tuple(self._step(tail, depth) for tail in tails)
        if isinstance(base, Path):
            return Path(base.base, base.steps + steps)
        return Path(base, steps) if steps else base

    def _step(self, tail: Any, depth: int) -> Member | Slice | Method:
        kind, children = tail.data, tail.children
        optional = kind.startswith("optional_")
        if kind.endswith("member"):
            return Member(Literal(str(children[0])), optional=optional, dotted=True)
        if kind.endswith("method"):
            return Method(str(children[0]), self._arguments(children[1], depth), optional=optional)
        nodes = [self.node(child, depth) for child in children]
        if kind.endswith("index"):
            return Member(nodes[0], optional=optional, dotted=False)
        start = nodes[0] if kind in ("slice", "slice_from") else None
        end = nodes[-1] if kind in ("slice", "slice_to") else None
        return Slice(start, end)

    def _call(self, children: list[Any], depth: int) -> Node:
        _check_predicate(str(children[0]), children[1].children[1:2])
        return Call(str(children[0]), self._arguments(children[1], depth))

    def _array(self, children: list[Any], depth: int) -> Node:
        return Array(tuple(self.node(child, depth) for child in children))

    def _map(self, children: list[Any], depth: int) -> Node:
        return Map(tuple(self._pair(child, depth) for child in children))

    def _pair(self, tree: Any, depth: int) -> tuple[Node, Node]:
        key, value = tree.children
        if tree.data == "computed":
            return self.node(key, depth), self.node(value, depth)
        written = str(key)
        return Literal(_text_value(written) if written[0] in "'\"" else written), self.node(value, depth)

    def _own_member(self, children: list[Any], _: int) -> Node:
        return Path(Pointer(""), (Member(Literal(str(children[0])), optional=False, dotted=True),))


def _check_predicate(function: str, predicate: list[Any]) -> None:
    """Refuse a map as a predicate: there its brace opens the predicate's body."""
    if function in PREDICATES and predicate and getattr(predicate[0], "data", "") == "map":
        raise ExpressionError(
            "", f"a map as the predicate of {function} needs parentheses or braces around it"
        )


def _named(name: str) -> Node:
    return Literal(_CONSTANTS[name]) if name in _CONSTANTS else Name(name)


def _text_value(quoted: str) -> str:
    """Return the value of a text in single or double quotes. Raises ExpressionError for an unknown escape."""
    inner = quoted[1:-1].replace("\r\n", "\n").replace("\r", "\n")
    return _ESCAPE.sub(_escaped, inner) if "\\" in inner else inner


def _escaped(match: re.Match[str]) -> str:
    if match["simple"]:
        return _SIMPLE[match["simple"]]
    digits = match["braced"] or match["two"] or match["four"] or match["eight"]
    number = int(digits, 16) if digits else int(match["octal"], 8) if match["octal"] else None
    if number is None or number > 0x10FFFF or 0xD800 <= number <= 0xDFFF:
        raise ExpressionError("", f"unknown escape {match[0]!r} in a text")
    return chr(number)


def _number_value(written: str) -> int | float:
    """Return the value of a number. Raises ExpressionError when it does not fit 64 bits."""
    digits = written.replace("_", "").lower()
    try:
        if digits[:2] in ("0x", "0o", "0b"):
            value: int | float = int(digits, 0)
        elif "." in digits or "e" in digits:
            value = float(digits)
        else:
            # More digits than 64 bits need are too many, however many there are.
            value = int(digits.lstrip("0")[:32] or "0")
    except ValueError:
        raise ExpressionError("", f"bad number {written[:40]!r}") from None
    if isinstance(value, int) and value >= 1 << 63:
        raise ExpressionError("", f"the number {written[:40]} does not fit 64 bits")
    if value == float("inf"):
        raise ExpressionError("", f"the number {written[:40]} is too large")
    return value


_SIGNS = frozenset(("NOT", "BANG", "PLUS", "MINUS", "WORD", "BINARY"))

_TOKENS: dict[str, Callable[[str], Node]] = {
    "NAME": _named,
    "NUMBER": lambda written: Literal(_number_value(written)),
    "STRING": lambda written: Literal(_text_value(written)),
    "RAW": lambda written: Literal(written[1:-1].replace("``", "`")),
    "POINTER": lambda written: Pointer(written[1:]),
}
