"""Semantic versions and the constraints on them, as sprig's semver and semverCompare take them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from periplus_manifest.errors import ExpressionError
from periplus_manifest.expression.budget import Budget
from periplus_manifest.expression.function import TEXT, Table, declare

TABLE: Table = {}

_MAX_CHARACTERS = 1_000
_TAIL = r"(?:-(?P<pre>[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?(?:\+(?P<meta>[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?"
_VERSION = re.compile(r"v?(?P<a>[0-9]+)(?:\.(?P<b>[0-9]+))?(?:\.(?P<c>[0-9]+))?" + _TAIL, re.ASCII)
_LOOSE = r"v?(?P<a>[0-9]+|[xX*])(?:\.(?P<b>[0-9]+|[xX*]))?(?:\.(?P<c>[0-9]+|[xX*]))?" + _TAIL
_BOUND = re.compile(r"\s*(?P<sign>!=|=>|>=|=<|<=|~>|=|>|<|~|\^)?\s*" + _LOOSE + r"\s*", re.ASCII)
_UNNAMED = re.sub(r"\?P<\w+>", "?:", _LOOSE)
_RANGE = re.compile(rf"({_UNNAMED})\s+-\s+({_UNNAMED})\s*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Version:
    """A version: its numbers, what is before its release, what was built, and how it was written."""

    numbers: tuple[int, int, int]
    before: str
    built: str
    original: str

    def __str__(self) -> str:
        """Write it in full."""
        text = ".".join(map(str, self.numbers))
        return text + (f"-{self.before}" if self.before else "") + (f"+{self.built}" if self.built else "")

    def compare(self, other: Version) -> int:
        """Return -1, 0 or 1 for an earlier, an equal or a later version; builds are all equal."""
        mine, others = (self.numbers, _rank(self.before)), (other.numbers, _rank(other.before))
        return (mine > others) - (mine < others)


def _rank(before: str) -> tuple[bool, list[tuple[bool, int, str]]]:
    parts = before.split(".") if before else []
    return not before, [(not part.isdigit(), int(part) if part.isdigit() else 0, part) for part in parts]


def version(text: str) -> Version:
    """Read a version. Raises ExpressionError for what is none."""
    match = _VERSION.fullmatch(text[:_MAX_CHARACTERS])
    if match is None or len(text) > _MAX_CHARACTERS:
        raise ExpressionError("", f"invalid semantic version {text[:60]!r}")
    numbers = tuple(int(match[part] or 0) for part in "abc")
    before = match["pre"] or ""
    if any(part.isdigit() and len(part) > 1 and part[0] == "0" for part in before.split(".")):
        raise ExpressionError("", f"version segment starts with 0 in {text[:60]!r}")
    if max(numbers) >= 1 << 64:
        raise ExpressionError("", f"a number of the version {text[:60]!r} is too large")
    return Version((numbers[0], numbers[1], numbers[2]), before, match["meta"] or "", text)


@dataclass(frozen=True, slots=True)
class Bound:
    """One comparison; `written` is how many of the three numbers it gives."""

    sign: str
    limit: Version
    written: int

    def holds(self, found: Version) -> bool:
        """Say whether a version satisfies it."""
        loose = self.written < 3
        if found.before and not self.limit.before and (loose or self.sign != "!="):
            return False  # a version before its release is meant only where the bound names such a one
        return _HOLDS[self.sign](found, self.limit, self.written)


def _tilde(found: Version, limit: Version, written: int) -> bool:
    if found.compare(limit) < 0:
        return False
    if limit.numbers == (0, 0, 0) and written in (0, 3):
        return True
    return found.numbers[:1] == limit.numbers[:1] and (written == 1 or found.numbers[1] == limit.numbers[1])


def _caret(found: Version, limit: Version, written: int) -> bool:
    if found.compare(limit) < 0:
        return False
    first = next((index for index, number in enumerate(limit.numbers) if number), 2)
    compared = min(first + 1, written) if written else 3
    return found.numbers[:compared] == limit.numbers[:compared]


def _equal(found: Version, limit: Version, written: int) -> bool:
    return _tilde(found, limit, written) if written < 3 else found.compare(limit) == 0


def _unequal(found: Version, limit: Version, written: int) -> bool:
    if written == 2 and found.numbers[:2] == limit.numbers[:2] and (found.before or limit.before):
        return _rank(found.before) != _rank(limit.before)
    if written in (1, 2):
        return found.numbers[:written] != limit.numbers[:written]
    return found.compare(limit) != 0


def _above(found: Version, limit: Version, written: int) -> bool:
    if written in (1, 2):
        return found.numbers[:written] > limit.numbers[:written]
    return found.compare(limit) > 0


def _at_most(found: Version, limit: Version, written: int) -> bool:
    if written == 3:
        return found.compare(limit) <= 0
    compared = 1 if written == 1 else 2
    return found.numbers[:compared] <= limit.numbers[:compared]


_HOLDS: Mapping[str, Callable[[Version, Version, int], bool]] = {
    **dict.fromkeys(("", "="), _equal),
    "!=": _unequal,
    ">": _above,
    "<": lambda found, limit, _: found.compare(limit) < 0,
    **dict.fromkeys((">=", "=>"), lambda found, limit, _: found.compare(limit) >= 0),
    **dict.fromkeys(("<=", "=<"), _at_most),
    **dict.fromkeys(("~", "~>"), _tilde),
    "^": _caret,
}


def _bound(match: re.Match[str]) -> Bound:
    numbers = [match[part] for part in "abc"]
    written = next((index for index, it in enumerate(numbers) if it is None or it in "xX*"), 3)
    text = ".".join([*numbers[:written], *"000"[written:]])
    return Bound(match["sign"] or "", version(text + (f"-{match['pre']}" if match["pre"] else "")), written)


def bounds(text: str) -> list[list[Bound]]:
    """Read a constraint: alternatives, each of bounds that must all hold. Raises ExpressionError."""
    found: list[list[Bound]] = []
    if len(text) > _MAX_CHARACTERS:
        raise ExpressionError("", f"a version constraint longer than {_MAX_CHARACTERS} characters")
    for part in _RANGE.sub(r">= \1, <= \2 ", text).split("||"):
        together: list[Bound] = []
        position = 0
        while position < len(part) or not together:
            match = _BOUND.match(part, position)
            separate = not together or part[position - 1].isspace() or part[position] == ","
            if together and match is None and part[position] == ",":
                match = _BOUND.match(part, position + 1)
            if match is None or not separate:
                raise ExpressionError("", f"improper constraint: {text[:60]}")
            together.append(_bound(match))
            position = match.end()
        found.append(together)
    return found


@declare(TABLE, "semverCompare", TEXT, TEXT)
def _semver_compare(budget: Budget, constraint: str, text: str) -> bool:
    budget.step(len(constraint))
    alternatives, found = bounds(constraint), version(text)
    return any(all(bound.holds(found) for bound in together) for together in alternatives)


@declare(TABLE, "semver", TEXT)
def _semver(_: Budget, text: str) -> Version:
    return version(text)


_METHODS: Mapping[str, Callable[[Version], Any]] = {
    "Major": lambda it: it.numbers[0],
    "Minor": lambda it: it.numbers[1],
    "Patch": lambda it: it.numbers[2],
    "Prerelease": lambda it: it.before,
    "Metadata": lambda it: it.built,
    "Original": lambda it: it.original,
    "String": str,
}
_COMPARISONS: Mapping[str, Callable[[int], Any]] = {
    "Compare": lambda sign: sign,
    "Equal": lambda sign: sign == 0,
    "LessThan": lambda sign: sign < 0,
    "GreaterThan": lambda sign: sign > 0,
}
METHODS = frozenset((*_METHODS, *_COMPARISONS))


def method(argument: Version, name: str, arguments: list[Any]) -> Any:
    """Call a method of a version. Raises ExpressionError for others."""
    if name in _METHODS and not arguments:
        return _METHODS[name](argument)
    if name in _COMPARISONS and len(arguments) == 1 and isinstance(arguments[0], Version):
        return _COMPARISONS[name](argument.compare(arguments[0]))
    raise ExpressionError("", f"a version has no method {name} for {len(arguments)} arguments")
