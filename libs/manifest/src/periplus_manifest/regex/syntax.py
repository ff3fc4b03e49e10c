"""From a pattern's text to its tree, as Go's regexp reads it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from periplus_manifest.errors import ManifestError

from . import character as characters
from .tree import At, Either, Group, One, Repeat, Row, Test, Tree

_MOST_REPEATS = 1_000
_DEEPEST = 60

_CONTROLS = {"a": "\a", "f": "\f", "t": "\t", "n": "\n", "r": "\r", "v": "\v"}


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
    if reader.rest():
        raise refused("unexpected )", pattern)
    return tree, reader.groups, reader.names


def refused(why: str, where: str) -> ManifestError:
    """Say why a pattern is refused."""
    return ManifestError("", f"error parsing regexp: {why}: {where[:60]!r}")


class _Reader:
    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._position = 0
        self.groups = 0
        self.names: dict[str, int] = {}

    def rest(self) -> str:
        return self._pattern[self._position :]

    def _take(self, text: str) -> bool:
        if self._pattern.startswith(text, self._position):
            self._position += len(text)
            return True
        return False

    def _character(self) -> str:
        if self._position >= len(self._pattern):
            raise refused("it ends too early", self._pattern)
        self._position += 1
        return self._pattern[self._position - 1]

    def either(self, flags: _Flags, depth: int) -> Tree:
        if depth > _DEEPEST:
            raise refused("nested too deeply", self._pattern)
        flags = _Flags(flags.i, flags.m, flags.s, flags.U)
        rows = [self._row(flags, depth)]
        while self._take("|"):
            rows.append(self._row(flags, depth))
        return rows[0] if len(rows) == 1 else Either(tuple(rows))

    def _row(self, flags: _Flags, depth: int) -> Tree:
        parts: list[Tree] = []
        while (rest := self._pattern[self._position : self._position + 1]) and rest not in "|)":
            if self._take("\\Q"):
                literal, _, after = self.rest().partition("\\E")
                self._position = len(self._pattern) - len(after)
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
        greedy = self._take("?") is flags.U
        if self._times() is not None:
            raise refused("invalid nested repetition operator", self._pattern)
        return Repeat(part, times[0], times[1], greedy)

    def _times(self) -> tuple[int, int | None] | None:
        for operator, times in (("*", (0, None)), ("+", (1, None)), ("?", (0, 1))):
            if self._take(operator):
                return times
        if not self.rest().startswith("{"):
            return None
        inside, closed, _ = self.rest()[1:].partition("}")
        least, comma, most = inside.partition(",")
        if not closed or not _digits(least) or (most and not _digits(most)):
            return None
        self._position += len(inside) + 2
        first, last = int(least), int(most) if most else None if comma else int(least)
        if first > _MOST_REPEATS or (last is not None and (last > _MOST_REPEATS or last < first)):
            raise refused("invalid repeat count", inside)
        return first, last

    def _single(self, flags: _Flags, depth: int) -> Tree | None:
        character = self._character()
        if character == "(":
            return self._group(flags, depth)
        if character == "[":
            return One(self._set(flags))
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
        if self._take("?P<") or self._take("?<"):
            name, closed, _ = self.rest().partition(">")
            if not closed or not name.isidentifier() or name in self.names:
                raise refused("invalid named capture", self.rest())
            self._position += len(name) + 1
            self.groups += 1
            number = self.names[name] = self.groups
        elif self._take("?"):
            if self._switch(inner):
                for field in ("i", "m", "s", "U"):
                    setattr(flags, field, getattr(inner, field))
                return None
        else:
            self.groups += 1
            number = self.groups
        part = self.either(inner, depth + 1)
        if not self._take(")"):
            raise refused("missing closing )", self._pattern)
        return Group(number, part) if number else part

    def _switch(self, flags: _Flags) -> bool:
        """Read the flags of (?i) or (?i: and say whether they stand alone."""
        on = True
        while True:
            character = self._character()
            if character in ":)":
                return character == ")"
            if character == "-":
                on = False
            elif character in "imsU":
                setattr(flags, character, on)
            else:
                raise refused("invalid or unsupported Perl syntax", self._pattern)

    def _escape(self, flags: _Flags) -> Tree:
        character = self._character()
        if character in "AzbB":
            return At(character)
        if (test := self._class(character)) is not None:
            return One(test)
        return One(_literal(self._escaped(character), flags))

    def _class(self, character: str) -> Test | None:
        if character in "pP":
            return self._unicode(character == "P")
        test = characters.CLASSES.get(character.lower())
        if test is None or character == character.lower():
            return test
        return partial(characters.other, test)

    def _unicode(self, negated: bool) -> Test:
        name = self._character()
        if name == "{":
            name, _, _ = self.rest().partition("}")
            self._position += len(name) + 1
        if name.startswith("^"):
            name, negated = name[1:], not negated
        if not (1 <= len(name) <= 2 and name[0] in "CLMNPSZ"):
            raise refused("unsupported character class", name)
        test: Test = partial(characters.in_category, name)
        return partial(characters.other, test) if negated else test

    def _escaped(self, character: str) -> str:
        if character in _CONTROLS:
            return _CONTROLS[character]
        if character == "x":
            digits = self._character()
            if digits == "{":
                digits, _, _ = self.rest().partition("}")
                self._position += len(digits) + 1
            else:
                digits += self._character()
            if not digits or len(digits) > 6 or set(digits) - set("0123456789abcdefABCDEF"):
                raise refused("invalid escape sequence", digits)
            if int(digits, 16) > 0x10FFFF:
                raise refused("invalid escape sequence", digits)
            return chr(int(digits, 16))
        if character == "0":
            digits = ""
            while len(digits) < 2 and self.rest()[:1] in tuple("01234567"):
                digits += self._character()
            return chr(int(digits or "0", 8))
        if character.isascii() and character.isalnum():
            raise refused("invalid escape sequence", "\\" + character)
        return character

    def _set(self, flags: _Flags) -> Test:
        negated = self._take("^")
        tests: list[Test] = []
        first = True
        while first or not self._take("]"):
            first = False
            tests.append(self._member(flags))
        test: Test = partial(characters.any_of, tuple(tests))
        return partial(characters.other, test) if negated else test

    def _member(self, flags: _Flags) -> Test:
        if self._take("[:"):
            name, closed, _ = self.rest().partition(":]")
            test = characters.POSIX.get(name.removeprefix("^"))
            if not closed or test is None:
                raise refused("invalid character class range", "[:" + name)
            self._position += len(name) + 2
            return partial(characters.other, test) if name.startswith("^") else test
        low = self._character()
        if low == "\\":
            low = self._character()
            if (test := self._class(low)) is not None:
                return test
            low = self._escaped(low)
        high = low
        if self.rest().startswith("-") and not self.rest().startswith("-]"):
            self._position += 1
            high = self._character()
            if high == "\\":
                high = self._escaped(self._character())
            if high < low:
                raise refused("invalid character class range", f"{low}-{high}")
        return partial(characters.folded if flags.i else characters.between, low, high)


def _digits(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 6


def _literal(character: str, flags: _Flags) -> Test:
    if flags.i and character.lower() != character.upper():
        return (character.lower() + character.upper()).__contains__
    return character.__eq__
