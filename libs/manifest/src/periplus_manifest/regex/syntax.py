"""From a pattern's text to its tree, as Go's regexp reads it."""

from __future__ import annotations

from dataclasses import dataclass

from . import character as characters
from .cursor import Cursor, refused
from .tree import At, Either, Group, One, Repeat, Row, Test, Tree

_MOST_REPEATS = 1_000
_DEEPEST = 60


@dataclass(slots=True)
class _Flags:
    i: bool = False
    m: bool = False
    s: bool = False
    U: bool = False


def parse(pattern: str) -> tuple[Tree, int, dict[str, int]]:
    """Give a pattern's tree, the number of its groups, and the numbers of those with names.

    Raises ManifestError where Go's regexp would not compile it.
    """
    reader = _Reader(pattern)
    tree = reader.either(_Flags(), 0)
    if reader.left:
        raise refused("unexpected )", pattern)
    return tree, reader.groups, reader.names


class _Reader:
    def __init__(self, pattern: str) -> None:
        self._cursor = Cursor(pattern)
        self.groups = 0
        self.names: dict[str, int] = {}

    @property
    def left(self) -> str:
        return self._cursor.rest()

    def either(self, flags: _Flags, depth: int) -> Tree:
        if depth > _DEEPEST:
            raise refused("nested too deeply", self._cursor.pattern)
        flags = _Flags(flags.i, flags.m, flags.s, flags.U)
        rows = [self._row(flags, depth)]
        while self._cursor.take("|"):
            rows.append(self._row(flags, depth))
        return rows[0] if len(rows) == 1 else Either(tuple(rows))

    def _row(self, flags: _Flags, depth: int) -> Tree:
        parts: list[Tree] = []
        while (
            rest := self._cursor.pattern[self._cursor.position : self._cursor.position + 1]
        ) and rest not in "|)":
            if self._cursor.take("\\Q"):
                literal, _, after = self._cursor.rest().partition("\\E")
                self._cursor.position = len(self._cursor.pattern) - len(after)
                parts += [One(_literal(character, flags)) for character in literal]
                continue
            part = self._single(flags, depth)
            if part is not None:
                parts.append(self._repeated(part, flags))
        return Row(tuple(parts))

    def _repeated(self, part: Tree, flags: _Flags) -> Tree:
        times = self._times()
        if times is None:
            return part
        greedy = self._cursor.take("?") is flags.U
        if self._times() is not None:
            raise refused("invalid nested repetition operator", self._cursor.pattern)
        return Repeat(part, times[0], times[1], greedy)

    def _times(self) -> tuple[int, int | None] | None:
        for operator, times in (("*", (0, None)), ("+", (1, None)), ("?", (0, 1))):
            if self._cursor.take(operator):
                return times
        if not self._cursor.rest().startswith("{"):
            return None
        inside, closed, _ = self._cursor.rest()[1:].partition("}")
        least, comma, most = inside.partition(",")
        if not closed or not _digits(least) or (most and not _digits(most)):
            return None
        self._cursor.position += len(inside) + 2
        first, last = int(least), int(most) if most else None if comma else int(least)
        if first > _MOST_REPEATS or (last is not None and (last > _MOST_REPEATS or last < first)):
            raise refused("invalid repeat count", inside)
        return first, last

    def _single(self, flags: _Flags, depth: int) -> Tree | None:
        character = self._cursor.character()
        if character == "(":
            return self._group(flags, depth)
        if character == "[":
            return One(self._cursor.bracketed(fold=flags.i))
        if character == ".":
            return One(characters.anything if flags.s else characters.no_newline)
        if character == "^":
            return At("^" if flags.m else "A")
        if character == "$":
            return At("$" if flags.m else "z")
        if character == "\\":
            return self._escape(flags)
        if character in "*+?":
            raise refused("missing argument to repetition operator", character)
        return One(_literal(character, flags))

    def _group(self, flags: _Flags, depth: int) -> Tree | None:
        inner = _Flags(flags.i, flags.m, flags.s, flags.U)
        number = 0
        if self._cursor.take("?P<") or self._cursor.take("?<"):
            name, closed, _ = self._cursor.rest().partition(">")
            if not closed or not name.isidentifier() or name in self.names:
                raise refused("invalid named capture", self._cursor.rest())
            self._cursor.position += len(name) + 1
            self.groups += 1
            number = self.names[name] = self.groups
        elif self._cursor.take("?"):
            if self._switch(inner):
                for field in ("i", "m", "s", "U"):
                    setattr(flags, field, getattr(inner, field))
                return None
        else:
            self.groups += 1
            number = self.groups
        part = self.either(inner, depth + 1)
        if not self._cursor.take(")"):
            raise refused("missing closing )", self._cursor.pattern)
        return Group(number, part) if number else part

    def _switch(self, flags: _Flags) -> bool:
        """Read the flags of (?i) or (?i: and say whether they stand alone."""
        on = True
        while True:
            character = self._cursor.character()
            if character in ":)":
                return character == ")"
            if character == "-":
                on = False
            elif character in "imsU":
                setattr(flags, character, on)
            else:
                raise refused("invalid or unsupported Perl syntax", self._cursor.pattern)

    def _escape(self, flags: _Flags) -> Tree:
        character = self._cursor.character()
        if character in "AzbB":
            return At(character)
        if (test := self._cursor.named(character)) is not None:
            return One(test)
        return One(_literal(self._cursor.escaped(character), flags))


def _digits(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 6


def _literal(character: str, flags: _Flags) -> Test:
    if flags.i and character.lower() != character.upper():
        return (character.lower() + character.upper()).__contains__
    return character.__eq__
