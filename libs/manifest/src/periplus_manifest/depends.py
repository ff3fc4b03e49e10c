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
_DEFAULT_RESULTS = frozenset(("Succeeded", "Skipped", "Daemoned"))

_TOKEN = re.compile(
    r"\s*(?:(?P<op>&&|\|\||[!()])|(?P<task>[a-zA-Z0-9][-a-zA-Z0-9]*)(?:\.(?P<result>[A-Za-z]+))?)"
)
_MAX_CHARACTERS = 1 << 18
_MAX_NESTING = 100


@dataclass(frozen=True, slots=True)
class Outcome:
    """True where a task ended in one of these results."""

    task: str
    results: frozenset[str]


@dataclass(frozen=True, slots=True)
class Not:
    """Negation of a term."""

    term: Term


@dataclass(frozen=True, slots=True)
class And:
    """True where all terms are; without terms, true."""

    terms: tuple[Term, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """True where at least one term is."""

    terms: tuple[Term, ...]


Term = Outcome | Not | And | Or


@dataclass(frozen=True)
class Depends:
    """A parsed `depends`."""

    term: Term

    @cached_property
    def tasks(self) -> set[str]:
        """The tasks that it waits for."""
        return {outcome.task for outcome in self._outcomes()}

    @cached_property
    def item_tasks(self) -> set[str]:
        """The tasks whose single iterations it refers to (.AnySucceeded, .AllFailed)."""
        return {outcome.task for outcome in self._outcomes() if outcome.results & ITEM_RESULTS}

    def evaluate(self, results: Mapping[str, set[str]]) -> bool:
        """Decide with the results of finished tasks; a task without an entry has none."""
        return _holds(self.term, results)

    def _outcomes(self) -> list[Outcome]:
        found, pending = [], [self.term]
        while pending:
            term = pending.pop()
            if isinstance(term, Outcome):
                found.append(term)
            elif isinstance(term, Not):
                pending.append(term.term)
            else:
                pending.extend(term.terms)
        return found


def parse(text: str) -> Depends:
    """Parse a `depends`. Raises ManifestError, without a path, for a bad text or an unknown result."""
    if len(text) > _MAX_CHARACTERS:
        raise ManifestError("", f"longer than {_MAX_CHARACTERS} characters")
    parser = _Parser(text)
    term = parser.or_terms(0)
    parser.end()
    return Depends(term)


def of(task: Mapping[str, Any], continue_on: Mapping[str, Mapping[str, Any]] | None = None) -> Depends | None:
    """Return what a DAG task waits for, from `depends` or from the older list `dependencies`; None for nothing.

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
    return Depends(And(tuple(Outcome(name, _widened((continue_on or {}).get(name))) for name in names)))


def _widened(continue_on: Mapping[str, Any] | None) -> frozenset[str]:
    results = set(_DEFAULT_RESULTS)
    if continue_on and continue_on.get("error"):
        results.add("Errored")
    if continue_on and continue_on.get("failed"):
        results.add("Failed")
    return frozenset(results)


def _holds(term: Term, results: Mapping[str, set[str]]) -> bool:
    if isinstance(term, Outcome):
        return not term.results.isdisjoint(results.get(term.task, ()))
    if isinstance(term, Not):
        return not _holds(term.term, results)
    if isinstance(term, And):
        return all(_holds(each, results) for each in term.terms)
    return any(_holds(each, results) for each in term.terms)


class _Parser:
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

    def or_terms(self, depth: int) -> Term:
        terms = [self._and_terms(depth)]
        while self._at("||"):
            self._next()
            terms.append(self._and_terms(depth))
        return terms[0] if len(terms) == 1 else Or(tuple(terms))

    def _and_terms(self, depth: int) -> Term:
        terms = [self._term(depth)]
        while self._at("&&"):
            self._next()
            terms.append(self._term(depth))
        return terms[0] if len(terms) == 1 else And(tuple(terms))

    def _term(self, depth: int) -> Term:
        if depth > _MAX_NESTING:
            raise ManifestError("", f"nested deeper than {_MAX_NESTING}")
        if self._at("!"):
            self._next()
            return Not(self._term(depth + 1))
        if self._at("("):
            self._next()
            term = self.or_terms(depth + 1)
            if not self._at(")"):
                raise self._unexpected("a closing parenthesis")
            self._next()
            return term
        token = self._token
        if token is None or token["task"] is None:
            raise self._unexpected("a task")
        self._next()
        return Outcome(token["task"], _results(token["task"], token["result"]))

    def end(self) -> None:
        if self._token is not None or self._text[self._end :].strip():
            raise self._unexpected("&&, || or the end")

    def _unexpected(self, expected: str) -> ManifestError:
        rest = self._text[self._token.start() if self._token else self._end :].strip()
        return ManifestError(
            "", f"expected {expected} at {rest[:40]!r}" if rest else f"expected {expected} at the end"
        )


def _results(task: str, result: str | None) -> frozenset[str]:
    if result is None:
        return _DEFAULT_RESULTS
    if result not in RESULTS:
        results = ", ".join(sorted(RESULTS))
        raise ManifestError("", f"task result '{result}' for task '{task}' is invalid; there are {results}")
    return frozenset((result,))
