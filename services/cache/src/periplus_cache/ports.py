"""What the cache needs from other processes, as Protocols: its store (Postgres) and the object store (S3)."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Protocol

from periplus_cache.domain import (
    Attempt,
    AttemptDetails,
    Candidate,
    ComparableEntry,
    Divergence,
    EntryDetails,
    EntryFilter,
    EntryPosition,
    EntrySelector,
    Invalidation,
    ObjectVersion,
    PastInvalidation,
    PipelineShadow,
    Recording,
    Savings,
    VersionedObject,
    WriteOutcome,
)
from periplus_cache.history import PastResult
from periplus_model.steps import ObjectRef

MAX_PER_BASE = 16
"""Entries of one key that differ in their discovered inputs and are considered for a step, the newest first."""


class Store(Protocol):
    """Entries, attempts, hits and content digests. Every method raises `Unavailable` if Postgres can not be reached."""

    async def candidates(
        self, project: str, limits: Mapping[str, int], fingerprints: Collection[str], now: datetime
    ) -> tuple[list[Candidate], list[Candidate]]:
        """Live entries: the newest of each static key, at most its limit plus one; and those with these fingerprints.

        With these base fingerprints, the newest of each, at most MAX_PER_BASE.
        """

    async def record(self, *recordings: Recording) -> list[WriteOutcome | None]:
        """Store what finished steps add, and queue the events. None: it was stored before, or has no entry."""

    async def invalidate(self, project: str, invalidations: Collection[Invalidation], now: datetime) -> None:
        """Invalidate entries and queue the events. Entries that are invalid or were replaced are left alone."""

    async def invalidate_selected(
        self, project: str, selector: EntrySelector, reason: str, now: datetime
    ) -> int:
        """Invalidate the live entries that match, queue the events, and return their number."""

    async def count_selected(self, project: str, selector: EntrySelector) -> int:
        """The number of entries that `invalidate_selected` would invalidate."""

    async def entry(self, project: str, fingerprint: str) -> EntryDetails | None:
        """An entry, also an invalid one, with its key."""

    async def list_entries(
        self, project: str, chosen: EntryFilter, after: EntryPosition | None, limit: int, now: datetime
    ) -> list[EntryDetails]:
        """At most `limit` entries that match, newest first, that come after a position; without their keys."""

    async def attempt(self, project: str, run: str, step: str) -> AttemptDetails | None:
        """The attempt of a step."""

    async def previous_attempt(self, attempt: Attempt) -> Attempt | None:
        """The last attempt of another run with the same fingerprint that finished before and was no hit."""

    async def past_results(self, project: str, fingerprints: Collection[str]) -> Mapping[str, PastResult]:
        """The last attempt that was no hit, and the entry, of each of these keys that has one of the two.

        A key is also that of an entry with discovered inputs whose base fingerprint it is.
        """

    async def last_invalidation(
        self, project: str, fingerprint: str, until: datetime
    ) -> PastInvalidation | None:
        """The last time until then that an entry with this fingerprint was invalidated or replaced."""

    async def comparable_entries(self, attempt: Attempt) -> Sequence[ComparableEntry]:
        """Entries that existed when the step finished: of its static key, or else of its template's name."""

    async def divergences(
        self, project: str, *, run: str = "", fingerprint: str = "", limit: int
    ) -> Sequence[Divergence]:
        """At most `limit` divergences, newest first: of a run and of a key, each if it is not empty."""

    async def unresolved_divergences(
        self, project: str, static_keys: Collection[str]
    ) -> Mapping[str, Divergence]:
        """By static key, the first divergence from an entry that is still served."""

    async def recorded_steps(self, project: str, run: str) -> int:
        """How many steps of a run are recorded."""

    async def savings(self, project: str, run: str) -> Savings:
        """What the hits of a run saved; with an empty `run`, of all runs of the project."""

    async def shadow_savings(
        self, project: str, pipeline: str, finished_after: datetime | None, limit: int
    ) -> Sequence[PipelineShadow]:
        """What the cache would have saved in observed runs, of a pipeline (empty: of each), the largest savings first."""

    async def content_digests(self, objects: Collection[VersionedObject]) -> dict[VersionedObject, str]:
        """The digests of those objects that were read before."""

    async def add_content_digests(self, digests: Mapping[VersionedObject, str]) -> None:
        """Store the digests of objects."""


class ObjectStore(Protocol):
    """The object store. Every method raises `Unavailable` if it can not be reached."""

    def absolute(self, ref: ObjectRef) -> ObjectRef:
        """The reference with the default bucket and endpoint filled in."""

    async def versions(self, refs: Collection[ObjectRef]) -> Mapping[ObjectRef, ObjectVersion | None]:
        """The version of each object; None if there is no such object."""

    async def is_folder(self, ref: ObjectRef) -> bool:
        """Whether there are objects below a key that is none itself: a folder that was stored without an archive."""

    async def changed(
        self, expected: Mapping[ObjectRef, ObjectVersion]
    ) -> Mapping[ObjectRef, ObjectVersion | None]:
        """Those objects that do not have the expected version, with the version that they have."""

    async def read_digest(self, ref: ObjectRef) -> tuple[VersionedObject, str]:
        """Read an object: the version that was read, and its content digest.

        Raises `NotFound` if there is no such object, `Invalid` if its content has no digest.
        """
