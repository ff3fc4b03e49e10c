"""Go's regular expressions, by RE2, whose syntax and semantics they share; time is linear in the text."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

from .errors import ManifestError

_MAX_PATTERN_CHARACTERS = 4_096
_MAX_SEARCH_SECONDS = 2.0
# RE2 takes a time that grows with the square of the optional repetitions: 0.1 s for as many.
_MAX_REPETITIONS = 10_000
_REPETITION = re.compile(r"\{\d*,?(\d{1,9})\}")
# At worst RE2 takes about 10 ns for each character and instruction: 4 µs for a step of the caller's budget.
_INSTRUCTIONS_PER_STEP = 400

# What RE2 says of a bad pattern, and what Go says of the same.
_GO_MESSAGES = {
    "missing )": "missing closing )",
    "missing ]": "missing closing ]",
    "no argument for repetition operator": "missing argument to repetition operator",
    "bad repetition operator": "invalid nested repetition operator",
    "invalid repetition size": "invalid repeat count",
    "invalid perl operator": "invalid or unsupported Perl syntax",
    "invalid named capture group": "invalid named capture",
    "pattern too large - compile failed": "expression too large",
}
_QUOTED_OR_ESCAPED = re.compile(r"\\Q.*?(?:\\E|\Z)|\\(.)", re.DOTALL)
_SURROGATE = re.compile("[\ud800-\udfff]")

Spans = tuple[int, ...]
Spend = Callable[[int], None]


class Regex:
    """A compiled pattern. `groups` counts its groups, `names` are the numbers of those that have a name.

    A search calls `spend` with its steps before it begins; `spend` raises an error to prevent it.
    """

    def __init__(self, pattern: str, *, max_seconds: float = _MAX_SEARCH_SECONDS) -> None:
        """Compile a pattern. Raises ManifestError where Go's regexp would refuse it."""
        import re2  # late, as it takes 13 ms and 4.5 MB of every process that matches something

        if len(pattern) > _MAX_PATTERN_CHARACTERS:
            raise _refused(f"longer than {_MAX_PATTERN_CHARACTERS} characters", pattern)
        if any(escape[1] == "C" for escape in _QUOTED_OR_ESCAPED.finditer(pattern)):
            raise _refused("invalid escape sequence", r"\C")  # RE2 takes it for any byte
        if sum(int(count) for count in _REPETITION.findall(pattern)) > _MAX_REPETITIONS:
            raise _refused(f"more than {_MAX_REPETITIONS} repetitions", pattern)
        options = re2.Options()
        options.log_errors = False
        try:
            self._compiled: Any = re2.compile(_encoded(pattern), options)
            re2.purge()  # its cache would hold 128 patterns of up to 8 MiB; the one below holds fewer
        except re2.error as error:
            message, _, where = error.args[0].decode("utf-8", "replace").partition(": ")
            raise _refused(message, where or pattern) from None
        self.groups: int = self._compiled.groups
        self.names = {name.decode(): number for name, number in self._compiled.groupindex.items()}
        self._steps_per_character = 1 + self._compiled.programsize // _INSTRUCTIONS_PER_STEP
        self._max_seconds = max_seconds

    def search(self, text: str, spend: Spend) -> bool:
        """Say whether the pattern is found anywhere."""
        return next(self.find_all(text, spend, 1), None) is not None

    def find_all(self, text: str, spend: Spend, limit: int = -1) -> Iterator[Spans]:
        """Return the matches one after another, at most `limit` of them, as Go's FindAll does.

        Each is the start and end of the whole, then of each group (-1: none), in characters of `text`. Raises
        ManifestError where all together take longer than `max_seconds`: with some patterns (a.*b|a) every match
        scans the text to its end.
        """
        spend((len(text) + 1) * self._steps_per_character)
        raw = _encoded(text)
        position, previous_end, characters, count = 0, -1, _CharacterOffsets(raw, text), 0
        deadline = time.thread_time() + self._max_seconds
        while position <= len(raw) and count != limit:
            match = self._compiled.search(raw, position)
            if match is None:
                return
            if time.thread_time() > deadline:
                raise ManifestError("", f"matching takes longer than {self._max_seconds} seconds")
            start, end = match.span()
            adjoins = start == end == previous_end  # Go leaves out an empty match right behind another match
            position = end if end > position else _next_character(raw, position)
            previous_end = end
            if not adjoins:
                count += 1
                yield characters.of([match.span(group) for group in range(self.groups + 1)])


class _CharacterOffsets:
    """From offsets in UTF-8 bytes to offsets in characters, for matches in the order of the text."""

    def __init__(self, raw: bytes, text: str) -> None:
        self._raw = raw
        self._same = len(raw) == len(text)
        self._bytes = self._characters = 0

    def of(self, spans: list[tuple[int, int]]) -> Spans:
        if self._same:
            return tuple(offset for span in spans for offset in span)
        self._characters += len(self._raw[self._bytes : spans[0][0]].decode())
        self._bytes = spans[0][0]
        return tuple(self._offset(offset) for span in spans for offset in span)

    def _offset(self, offset: int) -> int:
        return -1 if offset < 0 else self._characters + len(self._raw[self._bytes : offset].decode())


def _next_character(raw: bytes, position: int) -> int:
    position += 1
    while position < len(raw) and raw[position] & 0xC0 == 0x80:  # a continuation byte of UTF-8
        position += 1
    return position


def _encoded(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        return _SURROGATE.sub("\ufffd", text).encode()  # as Go reads half of a surrogate pair


def _refused(message: str, where: str) -> ManifestError:
    return ManifestError("", f"error parsing regexp: {_GO_MESSAGES.get(message, message)}: `{where[:60]}`")


@lru_cache(maxsize=32)
def compile(pattern: str) -> Regex:  # noqa: A001 - the word that regular expressions have for it
    """Compile a pattern, or give the one that was compiled before. Raises ManifestError as `Regex` does."""
    return Regex(pattern)
