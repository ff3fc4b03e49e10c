"""Planned fingerprints: a step's key with references to the outputs of earlier steps in place of their values.

Two runs in which the same steps lead to a step give it the same planned fingerprint before any of them has run, so that the second
run finds the lease of the first. It stands for no result: no entry is found by it.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from periplus_cache.resolve.inputs import InputValues
from periplus_common import digest
from periplus_model.queries import Item, Literal, OutputRef, StepQuery, Text

_VERSION = 1


class PlannedFingerprints:
    """The planned fingerprints of a request's steps, which are added in order. `contents` gives the digests of objects."""

    def __init__(self, values: InputValues) -> None:
        self._values = values
        self._by_step: dict[str, str] = {}
        self._with_references: set[str] = set()
        self._added: list[tuple[StepQuery, str, frozenset[str]]] = []

    def add(self, query: StepQuery, static_key: str, ignored: frozenset[str]) -> None:
        """Add a step that can be cached. Nothing is computed before one is asked for: a plan of hits needs none."""
        self._added.append((query, static_key, ignored))

    def _compute(self, query: StepQuery, static_key: str, ignored: frozenset[str]) -> None:
        """A step has none if an input of it can not be known before, or has none."""
        try:
            key: list[Any] = [
                _VERSION,
                static_key,
                {n: self._text(t) for n, t in sorted(query.parameters.items()) if n not in ignored},
                {n: self._artifact(s) for n, s in sorted(query.artifacts.items()) if n not in ignored},
                None if query.items is None else self._text(query.items),
            ]
        except _NotPlannedError:
            return
        self._by_step[query.id] = digest.of(key)
        if any(ref.step in self._by_step for ref in _references(query)):
            self._with_references.add(query.id)

    def find(self, query: StepQuery) -> str:
        """That of a step, or of a whole fan-out; empty if it has none, or no references."""
        if query.planned_fingerprint:
            return query.planned_fingerprint
        for added in self._added:
            self._compute(*added)
        self._added.clear()
        return self._by_step[query.id] if query.id in self._with_references else ""

    def _text(self, text: Text) -> list[Any]:
        parts: list[Any] = []
        for part in text:
            if isinstance(part, Literal):
                if parts and isinstance(parts[-1], str):
                    parts[-1] += part.text
                else:
                    parts.append(part.text)
            elif isinstance(part, Item):
                parts.append(["item", part.member])
            elif isinstance(part, OutputRef):
                parts.append(self._reference(part))
            else:
                raise _NotPlannedError
        return parts

    def _artifact(self, source: Any) -> Any:
        if isinstance(source, OutputRef):
            return self._reference(source)
        found = self._values.artifact(source)
        if not isinstance(found, str):
            raise _NotPlannedError
        return found

    def _reference(self, ref: OutputRef) -> list[str]:
        planned = self._by_step.get(ref.step)
        if planned is None:
            raise _NotPlannedError
        return [planned, "result" if ref.result else "output", ref.name]


def of_item(fan_out: str, scope: Mapping[str, str]) -> str:
    """The planned fingerprint of an item, from that of its fan-out."""
    return digest.of([fan_out, dict(scope)])


class _NotPlannedError(Exception):
    """An input can not be known before the steps that lead to it have run, or depends on the run."""


def _references(query: StepQuery) -> Iterator[OutputRef]:
    for text in (*query.parameters.values(), query.items or ()):
        yield from (part for part in text if isinstance(part, OutputRef))
    yield from (source for source in query.artifacts.values() if isinstance(source, OutputRef))
