"""The syntax tree of an expression."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Literal:
    """A text, number, boolean or nil."""

    value: Any


@dataclass(frozen=True, slots=True)
class Name:
    """A variable, from the environment or from a let."""

    name: str


@dataclass(frozen=True, slots=True)
class Pointer:
    """# or #acc or #index, inside a predicate."""

    name: str


@dataclass(frozen=True, slots=True)
class Member:
    """.name or [key]; `optional` for ?. and ?.[…]; `dotted` where a nil before it makes it nil as well."""

    key: Node
    optional: bool
    dotted: bool


@dataclass(frozen=True, slots=True)
class Slice:
    """[from:to]."""

    start: Node | None
    end: Node | None


@dataclass(frozen=True, slots=True)
class Method:
    """.name(arguments) on a time or a duration."""

    name: str
    arguments: tuple[Node, ...]
    optional: bool


@dataclass(frozen=True, slots=True)
class Path:
    """A value and the members, slices and methods applied to it in turn."""

    base: Node
    steps: tuple[Member | Slice | Method, ...]


@dataclass(frozen=True, slots=True)
class Prefix:
    """not x, -x or +x."""

    operator: str
    operand: Node


@dataclass(frozen=True, slots=True)
class Infix:
    """An operator and its right operand; `negated` for not in, not contains…"""

    operator: str
    right: Node
    negated: bool


@dataclass(frozen=True, slots=True)
class OperatorChain:
    """A value to which one operator after another is applied, from the left."""

    first: Node
    operations: tuple[Infix, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """a < b <= c, true when each neighbouring pair is."""

    first: Node
    operations: tuple[tuple[str, Node], ...]


@dataclass(frozen=True, slots=True)
class PipedValue:
    """The left side of a pipe, as the first argument of the call on its right."""


@dataclass(frozen=True, slots=True)
class Ternary:
    """condition ? yes : no; an elvis has no `yes` and gives the condition itself."""

    condition: Node
    yes: Node | None
    no: Node


@dataclass(frozen=True, slots=True)
class Call:
    """A function by its full name ("len", "sprig.upper") and its arguments."""

    function: str
    arguments: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Closure:
    """{ … }: a predicate, evaluated for each item."""

    body: Node


@dataclass(frozen=True, slots=True)
class Let:
    """let name = value; body."""

    name: str
    value: Node
    body: Node


@dataclass(frozen=True, slots=True)
class Sequence:
    """Expressions of which the last is the value."""

    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Array:
    """[a, b]."""

    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Map:
    """{a: b, (key): c}."""

    pairs: tuple[tuple[Node, Node], ...]


Node = (
    Literal
    | Name
    | Pointer
    | Path
    | Prefix
    | OperatorChain
    | Comparison
    | PipedValue
    | Ternary
    | Call
    | Closure
    | Let
    | Sequence
    | Array
    | Map
)
