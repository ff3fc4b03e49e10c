"""One character of a pattern: escapes, named classes and sets in brackets."""

from __future__ import annotations

from functools import partial

from periplus_manifest.errors import ManifestError

from . import character as characters
from .tree import Test

_CONTROLS = {"a": "\a", "f": "\f", "t": "\t", "n": "\n", "r": "\r", "v": "\v"}


def refused(why: str, where: str) -> ManifestError:
    """Say why a pattern is refused."""
    return ManifestError("", f"error parsing regexp: {why}: {where[:60]!r}")


class Cursor:
    """A place in a pattern."""

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self.position = 0

    def rest(self) -> str:
        """Give what is left."""
        return self.pattern[self.position :]

    def take(self, text: str) -> bool:
        """Step over a text if it comes next."""
        if self.pattern.startswith(text, self.position):
            self.position += len(text)
            return True
        return False

    def character(self) -> str:
        """Step over the next character, and give it."""
        if self.position >= len(self.pattern):
            raise refused("it ends too early", self.pattern)
        self.position += 1
        return self.pattern[self.position - 1]

    def named(self, character: str) -> Test | None:
        """Give the class that an escape such as d or pL names, if it names one."""
        if character in "pP":
            return self._unicode(negated=character == "P")
        test = characters.CLASSES.get(character.lower())
        if test is None or character == character.lower():
            return test
        return partial(characters.other, test)

    def _unicode(self, *, negated: bool) -> Test:
        name = self.character()
        if name == "{":
            name, _, _ = self.rest().partition("}")
            self.position += len(name) + 1
        if name.startswith("^"):
            name, negated = name[1:], not negated
        if not (1 <= len(name) <= 2 and name[0] in "CLMNPSZ"):
            raise refused("unsupported character class", name)
        test: Test = partial(characters.in_category, name)
        return partial(characters.other, test) if negated else test

    def escaped(self, character: str) -> str:
        """Give the character that an escape stands for."""
        if character in _CONTROLS:
            return _CONTROLS[character]
        if character == "x":
            digits = self.character()
            if digits == "{":
                digits, _, _ = self.rest().partition("}")
                self.position += len(digits) + 1
            else:
                digits += self.character()
            if not digits or len(digits) > 6 or set(digits) - set("0123456789abcdefABCDEF"):
                raise refused("invalid escape sequence", digits)
            if int(digits, 16) > 0x10FFFF:
                raise refused("invalid escape sequence", digits)
            return chr(int(digits, 16))
        if character == "0":
            digits = ""
            while len(digits) < 2 and self.rest()[:1] in tuple("01234567"):
                digits += self.character()
            return chr(int(digits or "0", 8))
        if character.isascii() and character.isalnum():
            raise refused("invalid escape sequence", "\\" + character)
        return character

    def bracketed(self, *, fold: bool) -> Test:
        """Read the rest of a set in brackets; `fold` for small and capital letters alike."""
        negated = self.take("^")
        tests: list[Test] = []
        first = True
        while first or not self.take("]"):
            first = False
            tests.append(self._member(fold=fold))
        test: Test = partial(characters.any_of, tuple(tests))
        return partial(characters.other, test) if negated else test

    def _member(self, *, fold: bool) -> Test:
        if self.take("[:"):
            name, closed, _ = self.rest().partition(":]")
            test = characters.POSIX.get(name.removeprefix("^"))
            if not closed or test is None:
                raise refused("invalid character class range", "[:" + name)
            self.position += len(name) + 2
            return partial(characters.other, test) if name.startswith("^") else test
        low = self.character()
        if low == "\\":
            low = self.character()
            if (test := self.named(low)) is not None:
                return test
            low = self.escaped(low)
        high = low
        if self.rest().startswith("-") and not self.rest().startswith("-]"):
            self.position += 1
            high = self.character()
            if high == "\\":
                high = self.escaped(self.character())
            if high < low:
                raise refused("invalid character class range", f"{low}-{high}")
        return partial(characters.folded if fold else characters.between, low, high)
