"""What the cache needs from outside the process, as Protocols."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from periplus_cache.attempt import Attempt, Hit, Savings
from periplus_cache.domain import Artifact, Inputs, Place, Policy, Stat
from periplus_cache.entry import Entry, Fate, Selector
from periplus_cache.known import Candidate


@dataclass(frozen=True, slots=True)
class Seen:
    """An object as it was when its bytes were digested."""

    place: Place
    etag: str
    size: int


@dataclass(frozen=True, slots=True)
class Recording:
    """All that a finished step leaves here, to be stored together or not at all."""

    attempt: Attempt
    document: str  # JSON text; empty where the step did not run
    epoch: int
    policy: Policy
    inputs: tuple[Artifact, ...] = ()  # with their digests
    outputs: tuple[Artifact, ...] = ()
    entry: Entry | None = None
    hit: Hit | None = None
    trace: Mapping[str, str] = field(
        default_factory=dict
    )  # the headers that carry the trace of the step's end


@dataclass(frozen=True, slots=True)
class Burial:
    """An entry to be taken out of use, as long as it is still this run's."""

    fingerprint: str
    run: str
    step: str
    reason: str


@dataclass(frozen=True, slots=True)
class Tombstone:
    """An entry that was taken out of use."""

    run: str
    step: str
    reason: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Earlier:
    """An entry that a step may be compared with. `document` is its template's, or None where that is the step's."""

    fingerprint: str
    run: str
    step: str
    recorded_at: datetime
    document: str | None
    epoch: int
    inputs: Inputs


@dataclass(frozen=True, slots=True)
class Shown:
    """One entry with all that is known of it."""

    entry: Entry
    document: str
    epoch: int
    hits: int


class Store(Protocol):
    """The record. Every method may raise `Unavailable`."""

    async def candidates(
        self, project: str, limits: Mapping[str, int], fingerprints: Collection[str], now: datetime
    ) -> tuple[list[Candidate], list[Candidate]]:
        """Live entries: of each static key the newest, one more than its limit at most; and these fingerprints'."""

    async def bury(self, project: str, burials: Collection[Burial], now: datetime) -> None:
        """Take entries out of use, and tell of it. Those that are buried, or made anew since, stay as they are."""

    async def record(self, *recordings: Recording) -> list[Fate | None]:
        """Store what finished steps leave, and their events. None: it was stored before, or brings no entry."""

    async def digests(self, seen: Collection[Seen]) -> dict[Seen, str]:
        """The digests of those of these objects that were read before."""

    async def remember(self, digests: Mapping[Seen, str]) -> None:
        """Keep the digests of objects."""

    async def attempt(self, project: str, run: str, step: str) -> tuple[Attempt, str, int] | None:
        """A step as it was seen to end, with its template's document and epoch."""

    async def same(self, attempt: Attempt) -> Attempt | None:
        """The last step of another run that ended before with the same fingerprint, and was no hit."""

    async def tombstone(self, project: str, fingerprint: str, until: datetime) -> Tombstone | None:
        """The last time that an entry with this fingerprint was taken out of use."""

    async def earlier(self, attempt: Attempt) -> Sequence[Earlier]:
        """Entries that were there when the step ended: of its static key or, without any, of its template's name."""

    async def entry(self, project: str, fingerprint: str) -> Shown | None:
        """An entry, buried or not."""

    async def invalidate(
        self, project: str, selector: Selector, reason: str, now: datetime, *, only_count: bool
    ) -> int:
        """Take the selected live entries out of use, tell of it, and say how many they are."""

    async def savings(self, project: str, run: str) -> Savings:
        """What hits saved, in a run or, without one, in all."""


class Objects(Protocol):
    """The object store. Every method may raise `Unavailable`."""

    def absolute(self, place: Place) -> Place:
        """The place with the default store's names filled in."""

    async def stat_many(self, places: Collection[Place]) -> Mapping[Place, Stat | None]:
        """What the store says of each object; None where it has none."""

    async def changed(self, held: Mapping[Place, Stat]) -> Mapping[Place, Stat | None]:
        """Those of these places that do not hold any more what they held, by tag and size, and what they hold now."""

    async def digest(self, place: Place) -> tuple[Seen, str]:
        """Read an object to its end: what was read, and its content digest.

        Raises `NotFound` where there is none, `Invalid` where it has no content digest.
        """
