"""A store and an object store in memory, and a clock that stands: what the service is tested with."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from periplus_cache import rest, told
from periplus_cache.attempt import Attempt, Savings
from periplus_cache.domain import (
    Phase,
    Place,
    Policy,
    Stat,
)
from periplus_cache.entry import Entry, Fate, Selector, fate, replaceable
from periplus_cache.known import Candidate
from periplus_cache.ports import Burial, Earlier, Recording, Seen, Shown, Tombstone
from periplus_common import digest
from periplus_common.bus import CloudEvent
from periplus_common.errors import NotFound, Unavailable

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        return self.now

    def move(self, **span: float) -> None:
        self.now += timedelta(**span)


@dataclass
class MemoryStore:
    """The record in memory. What it counts, tests may look at."""

    entries: dict[str, Entry] = field(default_factory=dict)
    attempts: dict[tuple[str, str, str], Attempt] = field(default_factory=dict)
    templates: dict[str, tuple[str, int]] = field(default_factory=dict)
    hits: dict[tuple[str, str, str], tuple[str, timedelta]] = field(default_factory=dict)
    tombs: list[tuple[str, Tombstone]] = field(default_factory=list)
    contents: dict[Seen, str] = field(default_factory=dict)
    events: list[CloudEvent] = field(default_factory=list)
    queries: int = 0

    async def candidates(
        self, project: str, limits: Mapping[str, int], fingerprints: Collection[str], now: datetime
    ) -> tuple[list[Candidate], list[Candidate]]:
        self.queries += 1
        live = [
            e for e in self.entries.values() if e.project == project and not e.buried and not e.expired(now)
        ]
        live.sort(key=lambda entry: entry.confirmed_at, reverse=True)
        by_static = [
            _candidate(entry)
            for key, limit in limits.items()
            for entry in [e for e in live if e.static_key == key][: limit + 1]
        ]
        return by_static, [_candidate(entry) for entry in live if entry.fingerprint in fingerprints]

    async def bury(self, project: str, burials: Collection[Burial], now: datetime) -> None:
        for burial in burials:
            entry = self.entries.get(burial.fingerprint)
            maker = entry and (entry.project, entry.maker.run, entry.maker.step)
            if entry and not entry.buried and maker == (project, burial.run, burial.step):
                self._entomb(entry, burial.reason, now)
                self.entries[burial.fingerprint] = replace(entry, buried=burial.reason)
                self.events.append(told.invalidated(entry, burial.reason, now))

    def _entomb(self, entry: Entry, reason: str, at: datetime) -> None:
        self.tombs.append((entry.fingerprint, Tombstone(entry.maker.run, entry.maker.step, reason, at)))

    async def record(self, *recordings: Recording) -> list[Fate | None]:
        return [self._record(recording) for recording in recordings]

    def _record(self, recording: Recording) -> Fate | None:
        attempt = recording.attempt
        name = (attempt.project, attempt.run, attempt.step)
        if name in self.attempts and self.attempts[name].finished_at >= attempt.finished_at:
            return None
        self.attempts[name] = attempt
        if recording.document:
            self.templates.setdefault(attempt.static_key, (recording.document, recording.epoch))
        decided = self._add(recording.entry, recording.policy) if recording.entry else None
        if recording.hit:
            self.hits.setdefault(name, (recording.hit.fingerprint, recording.hit.saved))
        if recording.inputs or recording.outputs:
            self.events += told.digested(recording)
        return decided

    def _add(self, came: Entry, policy: Policy) -> Fate:
        kept = self.entries.get(came.fingerprint)
        if kept is None:
            self.entries[came.fingerprint] = came
            self.events.append(told.recorded(came))
            return Fate.ADDED
        decided = fate(kept, came, policy)
        if decided is Fate.REPLACED:
            if not kept.buried:
                self._entomb(kept, replaceable(kept, came, policy), came.maker.at)
            self.entries[came.fingerprint] = came
            self.events.append(told.recorded(came))
        elif decided is Fate.DIVERGED:
            self.events.append(told.diverged(came, kept.outputs.differing(came.outputs)))
        elif not kept.buried:
            ends = (kept.expires_at, came.expires_at)
            self.entries[came.fingerprint] = replace(
                kept,
                confirmed_at=max(kept.confirmed_at, came.confirmed_at),
                expires_at=None if None in ends else max(ends),
            )
        return decided

    async def digests(self, seen: Collection[Seen]) -> dict[Seen, str]:
        return {what: self.contents[what] for what in seen if what in self.contents}

    async def remember(self, digests: Mapping[Seen, str]) -> None:
        self.contents = {**digests, **self.contents}

    async def attempt(self, project: str, run: str, step: str) -> tuple[Attempt, str, int] | None:
        found = self.attempts.get((project, run, step))
        return found and (found, *self.templates.get(found.static_key, ("", 0)))

    async def same(self, attempt: Attempt) -> Attempt | None:
        found = [
            other
            for other in self.attempts.values()
            if other.project == attempt.project
            and other.run != attempt.run
            and attempt.fingerprint
            and other.fingerprint == attempt.fingerprint
            and other.phase is not Phase.CACHED
            and other.finished_at <= attempt.finished_at
        ]
        return max(found, key=lambda other: other.finished_at, default=None)

    async def tombstone(self, project: str, fingerprint: str, until: datetime) -> Tombstone | None:
        return next(
            (tomb for name, tomb in reversed(self.tombs) if name == fingerprint and tomb.at <= until), None
        )

    async def earlier(self, attempt: Attempt) -> Sequence[Earlier]:
        before = [
            e
            for e in self.entries.values()
            if e.project == attempt.project
            and e.maker.at <= attempt.finished_at
            and (e.maker.run, e.maker.step) != (attempt.run, attempt.step)
        ]
        before.sort(key=lambda e: (e.maker.run == attempt.run, -e.maker.at.timestamp()))
        kind = [e for e in before if e.static_key == attempt.static_key]
        others = [e for e in kind if e.maker.run != attempt.run]
        found = others or kind or [e for e in before if e.template == attempt.template]
        return [self._earlier(e, attempt) for e in found]

    def _earlier(self, e: Entry, attempt: Attempt) -> Earlier:
        document, epoch = self.templates[e.static_key]
        document = None if e.static_key == attempt.static_key else document
        return Earlier(e.fingerprint, e.maker.run, e.maker.step, e.maker.at, document, epoch, e.inputs)

    async def entry(self, project: str, fingerprint: str) -> Shown | None:
        found = self.entries.get(fingerprint)
        if found is None or found.project != project:
            return None
        document, epoch = self.templates[found.static_key]
        return Shown(found, document, epoch, sum(name == fingerprint for name, _ in self.hits.values()))

    async def invalidate(
        self, project: str, selector: Selector, reason: str, now: datetime, *, only_count: bool
    ) -> int:
        chosen = [
            Burial(e.fingerprint, e.maker.run, e.maker.step, reason)
            for e in self.entries.values()
            if e.project == project
            and not e.buried
            and (not selector.fingerprints or e.fingerprint in selector.fingerprints)
            and selector.template in ("", e.template)
            and selector.run in ("", e.maker.run)
        ]
        if not only_count:
            await self.bury(project, chosen, now)
        return len(chosen)

    async def savings(self, project: str, run: str) -> Savings:
        spans = [s for (p, r, _), (_, s) in self.hits.items() if p == project and run in ("", r)]
        return Savings(len(spans), sum(spans, timedelta()))


def _candidate(e: Entry) -> Candidate:
    took = e.maker.took // timedelta(microseconds=1)
    stored = rest.outputs_to_bytes(e.outputs)
    return Candidate(e.fingerprint, e.static_key, e.maker.run, e.maker.step, stored, e.confirmed_at, took)


@dataclass
class MemoryObjects:
    """An object store in memory: contents and times by place."""

    found: dict[Place, tuple[bytes, datetime]] = field(default_factory=dict)
    away: bool = False
    stats: int = 0
    reads: int = 0

    def put(self, key: str, content: bytes = b"x", at: datetime = NOON - timedelta(hours=1)) -> Place:
        place = Place(key)
        self.found[place] = (content, at)
        return place

    def absolute(self, place: Place) -> Place:
        return Place(place.key, place.bucket or "default", place.endpoint or "here")

    async def stat_many(self, places: Collection[Place]) -> Mapping[Place, Stat | None]:
        self._check()
        self.stats += len(places)
        return {place: self._stat(place) for place in places}

    async def changed(self, held: Mapping[Place, Stat]) -> Mapping[Place, Stat | None]:
        stats = await self.stat_many(held)
        return {
            p: s for p, s in stats.items() if s is None or (s.etag, s.size) != (held[p].etag, held[p].size)
        }

    async def digest(self, place: Place) -> tuple[Seen, str]:
        self._check()
        self.reads += 1
        stat = self._stat(place)
        if stat is None:
            raise NotFound("no object")
        return Seen(self.absolute(place), stat.etag, stat.size), digest.of_bytes(self.found[place][0])

    def _stat(self, place: Place) -> Stat | None:
        if place not in self.found:
            return None
        content, at = self.found[place]
        return Stat(digest.sha256(content)[7:39], len(content), at)

    def _check(self) -> None:
        if self.away:
            raise Unavailable("the object store is away")
