"""Go's regular expressions, run in time that grows with the text and never with what might have matched."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from .cursor import refused
from .syntax import parse
from .tree import At, Either, Group, One, Repeat, Row, Test, Tree, may_be_empty

_LONGEST = 4_096
_MOST_INSTRUCTIONS = 5_000


@dataclass(slots=True)
class _Step:
    """One instruction: `one` and `at` go to the next, `split` to both, `jump` to the first, `save` marks."""

    kind: str
    test: Test | None = None
    place: str = ""
    first: int = 0
    second: int = 0


Spans = tuple[int, ...]
Spend = Callable[[int], None]


class Regex:
    """A compiled pattern."""

    def __init__(self, pattern: str) -> None:
        if len(pattern) > _LONGEST:
            raise refused(f"longer than {_LONGEST} characters", pattern)
        tree, self.groups, self.names = parse(pattern)
        self._steps: list[_Step] = []
        self._added = 0
        self._add(tree)
        self._emit(_Step("match"))

    def search(self, text: str, spend: Spend) -> bool:
        """Say whether the pattern is found anywhere; `spend` is told of the steps that this takes."""
        return self._run(text, 0, spend, spans=False) is not None

    def find(self, text: str, start: int, spend: Spend) -> Spans | None:
        """Give the first match from `start` on: start and end of the whole, then of each group (-1: none)."""
        return self._run(text, start, spend, spans=True)

    def find_all(self, text: str, spend: Spend, most: int = -1) -> Iterator[Spans]:
        """Give the matches one after another, at most `most` of them, as Go's FindAll does."""
        position, last, count = 0, -1, 0
        while position <= len(text) and count != most:
            spans = self.find(text, position, spend)
            if spans is None:
                return
            if spans[1] == spans[0] == last:
                position += 1
                continue
            yield spans
            count += 1
            last = spans[1]
            position = spans[1] if spans[1] > spans[0] else spans[1] + 1

    def _emit(self, step: _Step) -> int:
        if len(self._steps) >= _MOST_INSTRUCTIONS:
            raise refused("expression too large", "")
        self._steps.append(step)
        return len(self._steps) - 1

    def _add(self, tree: Tree) -> None:
        # Parts that match nothing emit nothing, so repeats of them are counted too.
        self._added += 1
        if self._added > 4 * _MOST_INSTRUCTIONS:
            raise refused("expression too large", "")
        if isinstance(tree, One):
            self._emit(_Step("one", tree.test))
        elif isinstance(tree, At):
            self._emit(_Step("at", None, tree.place))
        elif isinstance(tree, Row):
            for part in tree.parts:
                self._add(part)
        elif isinstance(tree, Either):
            self._either(tree.parts)
        elif isinstance(tree, Group):
            self._emit(_Step("save", first=2 * tree.number))
            self._add(tree.part)
            self._emit(_Step("save", first=2 * tree.number + 1))
        else:
            self._repeat(tree)

    def _either(self, parts: tuple[Tree, ...]) -> None:
        ends = []
        for part in parts[:-1]:
            split = self._emit(_Step("split"))
            self._steps[split].first = split + 1
            self._add(part)
            ends.append(self._emit(_Step("jump")))
            self._steps[split].second = len(self._steps)
        self._add(parts[-1])
        for end in ends:
            self._steps[end].first = len(self._steps)

    def _repeat(self, tree: Repeat) -> None:
        if tree.most is None:
            self._endless(tree)
            return
        for _ in range(tree.least):
            self._add(tree.part)
        splits = []
        for _ in range(tree.most - tree.least):
            splits.append(self._emit(_Step("split")))
            self._add(tree.part)
        for split in splits:
            self._branch(split, greedy=tree.greedy)

    def _endless(self, tree: Repeat) -> None:
        """x* and x{n,}. Where x may match nothing, x* is (x+)?, so that an empty round ends the loop."""
        for _ in range(tree.least - 1):
            self._add(tree.part)
        around = None
        if not tree.least:
            around = self._emit(_Step("split"))
            if not may_be_empty(tree.part):
                self._add(tree.part)
                self._emit(_Step("jump", first=around))
                self._branch(around, greedy=tree.greedy)
                return
        start = len(self._steps)
        self._add(tree.part)
        split = self._emit(_Step("split"))
        step = self._steps[split]
        step.first, step.second = (start, split + 1) if tree.greedy else (split + 1, start)
        if around is not None:
            self._branch(around, greedy=tree.greedy)

    def _branch(self, split: int, *, greedy: bool) -> None:
        into, past = split + 1, len(self._steps)
        step = self._steps[split]
        step.first, step.second = (into, past) if greedy else (past, into)

    def _run(self, text: str, start: int, spend: Spend, *, spans: bool) -> Spans | None:
        """Walk all ways at once, the preferred first, so that no character is looked at twice per way."""
        steps = self._steps
        nothing: Spans = (-1,) * (2 * self.groups + 2) if spans else ()
        threads: list[tuple[int, Spans]] = []
        found: Spans | None = None
        for position in range(start, len(text) + 1):
            if found is None:
                begun = (position, *nothing[1:]) if spans else nothing
                threads = self._spread([*threads, (0, begun)], text, position, spend, spans=spans)
            elif not threads:
                break
            else:
                threads = self._spread(threads, text, position, spend, spans=spans)
            after: list[tuple[int, Spans]] = []
            for number, marks in threads:
                step = steps[number]
                if step.kind == "match":
                    found = (marks[0], position, *marks[2:]) if spans else marks
                    if not spans:
                        return found
                    break
                if position < len(text) and step.test is not None and step.test(text[position]):
                    after.append((number + 1, marks))
            threads = after
        return found

    def _spread(
        self, threads: list[tuple[int, Spans]], text: str, position: int, spend: Spend, *, spans: bool
    ) -> list[tuple[int, Spans]]:
        """Follow jumps, splits, places and marks until every thread waits for a character or has matched."""
        steps = self._steps
        seen: set[int] = set()
        out: list[tuple[int, Spans]] = []
        waiting = threads[::-1]
        while waiting:
            number, marks = waiting.pop()
            if number in seen:
                continue
            seen.add(number)
            step = steps[number]
            kind = step.kind
            if kind == "split":
                waiting += ((step.second, marks), (step.first, marks))
            elif kind == "jump":
                waiting.append((step.first, marks))
            elif kind == "at":
                if _stands(step.place, text, position):
                    waiting.append((number + 1, marks))
            elif kind == "save":
                if spans:
                    marks = (*marks[: step.first], position, *marks[step.first + 1 :])
                waiting.append((number + 1, marks))
            else:
                out.append((number, marks))
        spend(len(seen))
        return out


def _stands(place: str, text: str, position: int) -> bool:
    if place == "A":
        return position == 0
    if place == "z":
        return position == len(text)
    if place == "^":
        return position == 0 or text[position - 1] == "\n"
    if place == "$":
        return position == len(text) or text[position] == "\n"
    before = position > 0 and _wordlike(text[position - 1])
    after = position < len(text) and _wordlike(text[position])
    return (before is not after) is (place == "b")


def _wordlike(character: str) -> bool:
    return character.isascii() and (character.isalnum() or character == "_")


@lru_cache(maxsize=64)
def compile(pattern: str) -> Regex:  # noqa: A001 - the word that regular expressions have for it
    """Compile a pattern. Raises ManifestError where Go's regexp would refuse it."""
    return Regex(pattern)
