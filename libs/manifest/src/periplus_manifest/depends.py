"""The `depends` of a DAG task: `a && (b.Failed || !c)` over the results of other tasks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from .errors import ManifestError

RESULTS = frozenset(
    ("Succeeded", "Failed", "Errored", "Skipped", "Omitted", "Daemoned", "AnySucceeded", "AllFailed")
)
ITEM_RESULTS = frozenset(("AnySucceeded", "AllFailed"))
_PLAIN = frozenset(("Succeeded", "Skipped", "Daemoned"))

_TOKEN = re.compile(
    r"\s*(?:(?P<op>&&|\|\||[!()])|(?P<task>[a-zA-Z0-9][-a-zA-Z0-9]*)(?:\.(?P<result>[A-Za-z]+))?)"
)
_LARGEST = 1 << 18
_DEEPEST = 100


@dataclass(frozen=True, slots=True)
class Outcome:
    """A task that ended in one of these results."""

    task: str
    results: frozenset[str]


@dataclass(frozen=True, slots=True)
class Not:
    """The opposite of a part."""

    part: Part


@dataclass(frozen=True, slots=True)
class Every:
    """All parts; with none, true."""

    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Some:
    """At least one part."""

    parts: tuple[Part, ...]


Part = Outcome | Not | Every | Some


@dataclass(frozen=True)
class Depends:
    """A parsed `depends`."""

    part: Part

    @cached_property
    def tasks(self) -> set[str]:
        """The tasks that it waits for."""
        return {outcome.task for outcome in self._outcomes()}

    @cached_property
    def item_tasks(self) -> set[str]:
        """The tasks whose single iterations it asks for (.AnySucceeded, .AllFailed)."""
        return {outcome.task for outcome in self._outcomes() if outcome.results & ITEM_RESULTS}

    def evaluate(self, results: Mapping[str, set[str]]) -> bool:
        """Decide with the results of finished tasks; a task without an entry has none."""
        return _holds(self.part, results)

    def _outcomes(self) -> list[Outcome]:
        found, waiting = [], [self.part]
        while waiting:
            part = waiting.pop()
            if isinstance(part, Outcome):
                found.append(part)
            elif isinstance(part, Not):
                waiting.append(part.part)
            else:
                waiting.extend(part.parts)
        return found


def parse(text: str) -> Depends:
    """Parse a `depends`. Raises ManifestError, without a path, for a bad text or an unknown result."""
    if len(text) > _LARGEST:
        raise ManifestError("", f"longer than {_LARGEST} characters")
    reader = _Reader(text)
    part = reader.some(0)
    reader.end()
    return Depends(part)


def of(task: Mapping[str, Any], continue_on: Mapping[str, Mapping[str, Any]] | None = None) -> Depends | None:
    """Give what a DAG task waits for, from `depends` or from the older list `dependencies`; None for nothing.

    `continue_on` maps a task's name to its `continueOn`, which widens what counts in `dependencies`.
    Raises ManifestError with the field's name as path.
    """
    if text := task.get("depends"):
        try:
            return parse(text)
        except ManifestError as error:
            raise error.under("depends") from None
    names = task.get("dependencies")
    if not names:
        return None
    return Depends(Every(tuple(Outcome(name, _widened((continue_on or {}).get(name))) for name in names)))


def _widened(continue_on: Mapping[str, Any] | None) -> frozenset[str]:
    results = set(_PLAIN)
    if continue_on and continue_on.get("error"):
        results.add("Errored")
    if continue_on and continue_on.get("failed"):
        results.add("Failed")
    return frozenset(results)


def _holds(part: Part, results: Mapping[str, set[str]]) -> bool:
    if isinstance(part, Outcome):
        return not part.results.isdisjoint(results.get(part.task, ()))
    if isinstance(part, Not):
        return not _holds(part.part, results)
    if isinstance(part, Every):
        return all(_holds(each, results) for each in part.parts)
    return any(_holds(each, results) for each in part.parts)


class _Reader:
    """A recursive descent over the tokens: || below && below !, as in Go."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._end = 0
        self._token: re.Match[str] | None = None
        self._next()

    def _next(self) -> None:
        self._token = _TOKEN.match(self._text, self._end)
        if self._token is not None:
            self._end = self._token.end()

    def _at(self, operator: str) -> bool:
        return self._token is not None and self._token["op"] == operator

    def some(self, depth: int) -> Part:
        parts = [self._every(depth)]
        while self._at("||"):
            self._next()
            parts.append(self._every(depth))
        return parts[0] if len(parts) == 1 else Some(tuple(parts))

    def _every(self, depth: int) -> Part:
        parts = [self._single(depth)]
        while self._at("&&"):
            self._next()
            parts.append(self._single(depth))
        return parts[0] if len(parts) == 1 else Every(tuple(parts))

    def _single(self, depth: int) -> Part:
        if depth > _DEEPEST:
            raise ManifestError("", f"nested deeper than {_DEEPEST}")
        if self._at("!"):
            self._next()
            return Not(self._single(depth + 1))
        if self._at("("):
            self._next()
            part = self.some(depth + 1)
            if not self._at(")"):
                raise self._unexpected("a closing parenthesis")
            self._next()
            return part
        token = self._token
        if token is None or token["task"] is None:
            raise self._unexpected("a task")
        self._next()
        return Outcome(token["task"], _results(token["task"], token["result"]))

    def end(self) -> None:
        if self._token is not None or self._text[self._end :].strip():
            raise self._unexpected("&&, || or the end")

    def _unexpected(self, wanted: str) -> ManifestError:
        rest = self._text[self._token.start() if self._token else self._end :].strip()
        return ManifestError(
            "", f"expected {wanted} at {rest[:40]!r}" if rest else f"expected {wanted} at the end"
        )


def _results(task: str, result: str | None) -> frozenset[str]:
    if result is None:
        return _PLAIN
    if result not in RESULTS:
        known = ", ".join(sorted(RESULTS))
        raise ManifestError("", f"task result '{result}' for task '{task}' is invalid; there are {known}")
    return frozenset((result,))
