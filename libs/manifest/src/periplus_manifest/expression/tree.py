"""An expression's tree: what was written, grouped, with names not yet looked up."""

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
    """.name or [key]; `maybe` for ?. and ?.[…], `dotted` where it belongs to the chain before it."""

    key: Node
    maybe: bool
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
    maybe: bool


@dataclass(frozen=True, slots=True)
class Path:
    """A value and the steps taken from it."""

    base: Node
    steps: tuple[Member | Slice | Method, ...]


@dataclass(frozen=True, slots=True)
class Prefix:
    """not x, -x or +x."""

    operator: str
    operand: Node


@dataclass(frozen=True, slots=True)
class Infix:
    """An operator and what stands right of it; `negated` for not in, not contains…"""

    operator: str
    right: Node
    negated: bool


@dataclass(frozen=True, slots=True)
class Row:
    """A value to which one operator after another is applied."""

    first: Node
    rest: tuple[Infix, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """a < b <= c, true when each neighbouring pair is."""

    first: Node
    rest: tuple[tuple[str, Node], ...]


@dataclass(frozen=True, slots=True)
class Piped:
    """The place of the value that a pipe hands on, as first argument."""


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
    """What a predicate asks of each item."""

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
    | Row
    | Comparison
    | Piped
    | Ternary
    | Call
    | Closure
    | Let
    | Sequence
    | Array
    | Map
)
