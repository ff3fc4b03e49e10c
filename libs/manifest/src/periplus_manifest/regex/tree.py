"""Go's regular expressions as trees: what a pattern says, before it is run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

Test = Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class One:
    """One character that passes a test."""

    test: Test


@dataclass(frozen=True, slots=True)
class At:
    """A place between characters: ^ $ A z b B."""

    place: str


@dataclass(frozen=True, slots=True)
class Row:
    """Parts after one another."""

    parts: tuple[Tree, ...]


@dataclass(frozen=True, slots=True)
class Either:
    """Alternatives, the first preferred."""

    parts: tuple[Tree, ...]


@dataclass(frozen=True, slots=True)
class Repeat:
    """A part again and again; `most` is None for no end."""

    part: Tree
    least: int
    most: int | None
    greedy: bool


@dataclass(frozen=True, slots=True)
class Group:
    """A part whose place is remembered."""

    number: int
    part: Tree


Tree = One | At | Row | Either | Repeat | Group


def may_be_empty(tree: Tree) -> bool:
    """Say whether a tree can match without taking a character."""
    if isinstance(tree, One):
        return False
    if isinstance(tree, Row):
        return all(may_be_empty(part) for part in tree.parts)
    if isinstance(tree, Either):
        return any(may_be_empty(part) for part in tree.parts)
    if isinstance(tree, Group):
        return may_be_empty(tree.part)
    return isinstance(tree, At) or tree.least == 0 or may_be_empty(tree.part)
