"""Tests of single characters: the classes that regular expressions name, and ranges."""

from __future__ import annotations

import unicodedata

from .tree import Test

CLASSES: dict[str, Test] = {
    "d": lambda c: "0" <= c <= "9",
    "s": lambda c: c in "\t\n\f\r ",
    "w": lambda c: c.isascii() and (c.isalnum() or c == "_"),
}
POSIX: dict[str, Test] = {
    "alnum": lambda c: c.isascii() and c.isalnum(),
    "alpha": lambda c: c.isascii() and c.isalpha(),
    "ascii": str.isascii,
    "blank": lambda c: c in "\t ",
    "cntrl": lambda c: c < " " or c == "\x7f",
    "digit": CLASSES["d"],
    "graph": lambda c: "!" <= c <= "~",
    "lower": lambda c: "a" <= c <= "z",
    "print": lambda c: " " <= c <= "~",
    "punct": lambda c: "!" <= c <= "~" and not c.isalnum(),
    "space": lambda c: c in "\t\n\v\f\r ",
    "upper": lambda c: "A" <= c <= "Z",
    "word": CLASSES["w"],
    "xdigit": lambda c: c in "0123456789abcdefABCDEF",
}


def anything(_: str) -> bool:
    """Any character."""
    return True


def no_newline(character: str) -> bool:
    """Any character of a line."""
    return character != "\n"


def other(test: Test, character: str) -> bool:
    """A character that does not pass a test."""
    return not test(character)


def any_of(tests: tuple[Test, ...], character: str) -> bool:
    """A character that passes one of some tests."""
    return any(test(character) for test in tests)


def between(low: str, high: str, character: str) -> bool:
    """A character of a range."""
    return low <= character <= high


def folded(low: str, high: str, character: str) -> bool:
    """A character of a range, in small or capital letters."""
    return low <= character <= high or low <= character.lower() <= high or low <= character.upper() <= high


def in_category(name: str, character: str) -> bool:
    """A character of a Unicode category."""
    return unicodedata.category(character).startswith(name)
