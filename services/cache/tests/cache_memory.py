"""A store and an object store in memory, and a clock that tests set."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from periplus_cache.domain import (
    Attempt,
    AttemptDetails,
    Candidate,
    ComparableEntry,
    Divergence,
    Entry,
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
    divergence,
    replacement_reason,
    write_outcome,
)
from periplus_cache.history import PastEntry, PastResult
from periplus_cache.ports import MAX_PER_BASE
from periplus_cache.record.finished import EXECUTED
from periplus_cache.wire import published
from periplus_common import digest
from periplus_common.bus import CloudEvent
from periplus_common.errors import NotFound, Unavailable
from periplus_model.steps import CachePolicy, ObjectRef, StepPhase

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


class Clock:
    """A clock that stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        return self.now

    def move(self, **duration: float) -> None:
        self.now += timedelta(**duration)


@dataclass
class MemoryStore:
    """The Store of `ports` in memory. Tests look at its fields."""

    entries: dict[str, Entry] = field(default_factory=dict)
    attempts: dict[tuple[str, str, str], Attempt] = field(default_factory=dict)
    templates: dict[str, tuple[str, int]] = field(default_factory=dict)
    hits: dict[tuple[str, str, str], tuple[str, timedelta]] = field(default_factory=dict)
    invalidations: list[tuple[str, PastInvalidation]] = field(default_factory=list)
    contents: dict[VersionedObject, str] = field(default_factory=dict)
    events: list[CloudEvent] = field(default_factory=list)
    diverged: dict[tuple[str, str, str], Divergence] = field(default_factory=dict)
    resolved: set[tuple[str, str, str]] = field(default_factory=set)
    queries: int = 0

    async def candidates(
        self, project: str, limits: Mapping[str, int], fingerprints: Collection[str], now: datetime
    ) -> tuple[list[Candidate], list[Candidate]]:
        self.queries += 1
        live = [
            entry
            for entry in self.entries.values()
            if entry.project == project and not entry.invalidation_reason and not entry.is_expired(now)
        ]
        live.sort(key=lambda entry: entry.confirmed_at, reverse=True)
        by_static_key = [
            _candidate(entry)
            for key, limit in limits.items()
            for entry in [e for e in live if e.static_key == key][: limit + 1]
        ]
        exact = [e for e in live if e.fingerprint in fingerprints and not e.base_fingerprint]
        for base in fingerprints:
            exact += [e for e in live if e.base_fingerprint == base][:MAX_PER_BASE]
        return by_static_key, [_candidate(entry) for entry in exact]

    async def invalidate(self, project: str, invalidations: Collection[Invalidation], now: datetime) -> None:
        for wanted in invalidations:
            entry = self.entries.get(wanted.fingerprint)
            producer = entry and (entry.project, entry.producer.run, entry.producer.step)
            expected = (project, wanted.producer_run, wanted.producer_step)
            if entry and not entry.invalidation_reason and producer == expected:
                self._add_invalidation(entry, wanted.reason, now)
                self.entries[wanted.fingerprint] = replace(entry, invalidation_reason=wanted.reason)
                self.events.append(published.entry_invalidated(entry, wanted.reason, now))

    def _add_invalidation(self, entry: Entry, reason: str, at: datetime) -> None:
        past = PastInvalidation(entry.producer.run, entry.producer.step, reason, at)
        self.invalidations.append((entry.fingerprint, past))
        self.resolved |= {key for key, d in self.diverged.items() if d.fingerprint == entry.fingerprint}

    async def record(self, *recordings: Recording) -> list[WriteOutcome | None]:
        return [self._record(recording) for recording in recordings]

    def _record(self, recording: Recording) -> WriteOutcome | None:
        attempt = recording.attempt
        key = (attempt.project, attempt.run, attempt.step)
        if key in self.attempts and self.attempts[key].finished_at >= attempt.finished_at:
            return None
        self.attempts[key] = attempt
        if recording.document:
            self.templates.setdefault(attempt.static_key, (recording.document, recording.epoch))
        outcome = self._add(recording.entry, recording.policy) if recording.entry else None
        if recording.hit:
            self.hits.setdefault(key, (recording.hit.fingerprint, recording.hit.saved))
        if recording.inputs or recording.outputs:
            self.events += published.artifacts_digested(recording)
        return outcome

    def _add(self, new: Entry, policy: CachePolicy) -> WriteOutcome:
        existing = self.entries.get(new.fingerprint)
        if existing is None:
            self.entries[new.fingerprint] = new
            self.events.append(published.entry_recorded(new))
            return WriteOutcome.ADDED
        outcome = write_outcome(existing, new, policy)
        if outcome is WriteOutcome.REPLACED:
            if not existing.invalidation_reason:
                reason = replacement_reason(existing, new, policy)
                self._add_invalidation(existing, reason, new.producer.finished_at)
            self.entries[new.fingerprint] = new
            self.events.append(published.entry_recorded(new))
        elif outcome is not WriteOutcome.DIVERGED and not existing.invalidation_reason:
            ends = (existing.expires_at, new.expires_at)
            self.entries[new.fingerprint] = replace(
                existing,
                confirmed_at=max(existing.confirmed_at, new.confirmed_at),
                expires_at=None if None in ends else max(ends),
            )
        if found := divergence(new, existing, outcome, policy):
            key = (found.project, found.run, found.step)
            self.diverged[key] = found
            self.resolved.discard(key)
            if found.is_resolved:
                self.resolved.add(key)
            if outcome is WriteOutcome.DIVERGED:
                self.events.append(published.entry_diverged(new, found.outputs))
        return outcome

    async def content_digests(self, objects: Collection[VersionedObject]) -> dict[VersionedObject, str]:
        return {found: self.contents[found] for found in objects if found in self.contents}

    async def add_content_digests(self, digests: Mapping[VersionedObject, str]) -> None:
        self.contents = {**digests, **self.contents}

    async def attempt(self, project: str, run: str, step: str) -> AttemptDetails | None:
        found = self.attempts.get((project, run, step))
        return found and AttemptDetails(found, *self.templates.get(found.static_key, ("", 0)))

    async def previous_attempt(self, attempt: Attempt) -> Attempt | None:
        found = [
            other
            for other in self.attempts.values()
            if other.project == attempt.project
            and other.run != attempt.run
            and attempt.fingerprint
            and other.fingerprint == attempt.fingerprint
            and other.phase is not StepPhase.CACHED
            and other.finished_at <= attempt.finished_at
        ]
        return max(found, key=lambda other: other.finished_at, default=None)

    async def past_results(self, project: str, fingerprints: Collection[str]) -> dict[str, PastResult]:
        found = {}
        for name in fingerprints:
            ran = [
                a
                for a in self.attempts.values()
                if (a.project, a.fingerprint) == (project, name) and a.phase is not StepPhase.CACHED
            ]
            entries = [
                e
                for e in self.entries.values()
                if e.project == project
                and (e.fingerprint == name or (e.base_fingerprint == name and not e.invalidation_reason))
            ]
            if ran or entries:
                last = max(ran, key=lambda a: a.finished_at) if ran else None
                entry = entries[0] if entries else None
                found[name] = PastResult(
                    last and replace(last, inputs=None),
                    entry
                    and PastEntry(
                        entry.producer.run, entry.producer.step, entry.invalidation_reason, entry.expires_at
                    ),
                )
        return found

    async def last_invalidation(
        self, project: str, fingerprint: str, until: datetime
    ) -> PastInvalidation | None:
        return next(
            (
                past
                for name, past in reversed(self.invalidations)
                if name == fingerprint and past.invalidated_at <= until
            ),
            None,
        )

    async def comparable_entries(self, attempt: Attempt) -> Sequence[ComparableEntry]:
        before = [
            e
            for e in self.entries.values()
            if e.project == attempt.project
            and e.producer.finished_at <= attempt.finished_at
            and (e.producer.run, e.producer.step) != (attempt.run, attempt.step)
        ]
        before.sort(key=lambda e: (e.producer.run == attempt.run, -e.producer.finished_at.timestamp()))
        own = [e for e in before if attempt.pipeline and e.pipeline == attempt.pipeline]
        found = self._nearest(own, attempt) or self._nearest(before, attempt)
        return [self._comparable(e, attempt) for e in found]

    def _nearest(self, before: list[Entry], attempt: Attempt) -> list[Entry]:
        same_key = [e for e in before if e.static_key == attempt.static_key]
        other_runs = [e for e in same_key if e.producer.run != attempt.run]
        return other_runs or same_key or [e for e in before if e.template == attempt.template]

    def _comparable(self, entry: Entry, attempt: Attempt) -> ComparableEntry:
        document, epoch = self.templates[entry.static_key]
        return ComparableEntry(
            fingerprint=entry.fingerprint,
            producer_run=entry.producer.run,
            producer_step=entry.producer.step,
            recorded_at=entry.producer.finished_at,
            document=None if entry.static_key == attempt.static_key else document,
            epoch=epoch,
            inputs=entry.inputs,
            expires_at=entry.expires_at,
        )

    async def entry(self, project: str, fingerprint: str) -> EntryDetails | None:
        found = self.entries.get(fingerprint)
        if found is None or found.project != project:
            return None
        return EntryDetails(found, self._hits(found), *self.templates[found.static_key])

    def _hits(self, entry: Entry) -> int:
        return sum(fingerprint == entry.fingerprint for fingerprint, _ in self.hits.values())

    async def list_entries(
        self, project: str, chosen: EntryFilter, after: EntryPosition | None, limit: int, now: datetime
    ) -> list[EntryDetails]:
        def position(entry: Entry) -> tuple[datetime, str]:
            return entry.producer.finished_at, entry.fingerprint

        found = [
            entry
            for entry in self.entries.values()
            if entry.project == project
            and (chosen.include_invalid or not (entry.invalidation_reason or entry.is_expired(now)))
            and chosen.template in ("", entry.template)
            and chosen.producer_run in ("", entry.producer.run)
            and (after is None or position(entry) < (after.recorded_at, after.fingerprint))
        ]
        found.sort(key=position, reverse=True)
        return [EntryDetails(entry, self._hits(entry)) for entry in found[:limit]]

    async def invalidate_selected(
        self, project: str, selector: EntrySelector, reason: str, now: datetime
    ) -> int:
        selected = [
            Invalidation(entry.fingerprint, entry.producer.run, entry.producer.step, reason)
            for entry in self._selected(project, selector)
        ]
        await self.invalidate(project, selected, now)
        return len(selected)

    async def count_selected(self, project: str, selector: EntrySelector) -> int:
        return len(self._selected(project, selector))

    def _selected(self, project: str, selector: EntrySelector) -> list[Entry]:
        return [
            entry
            for entry in self.entries.values()
            if entry.project == project
            and not entry.invalidation_reason
            and (not selector.fingerprints or entry.fingerprint in selector.fingerprints)
            and selector.template in ("", entry.template)
            and selector.producer_run in ("", entry.producer.run)
        ]

    async def divergences(
        self, project: str, *, run: str = "", fingerprint: str = "", limit: int
    ) -> list[Divergence]:
        found = [
            d
            for d in self.diverged.values()
            if d.project == project and run in ("", d.run) and fingerprint in ("", d.fingerprint)
        ]
        return sorted(found, key=lambda d: d.detected_at, reverse=True)[:limit]

    async def unresolved_divergences(
        self, project: str, static_keys: Collection[str]
    ) -> dict[str, Divergence]:
        found = [d for key, d in self.diverged.items() if key not in self.resolved and d.project == project]
        found.sort(key=lambda d: d.detected_at, reverse=True)
        return {d.static_key: d for d in found if d.static_key in static_keys}

    async def recorded_steps(self, project: str, run: str) -> int:
        return sum((p, r) == (project, run) for p, r, _ in self.attempts)

    async def savings(self, project: str, run: str) -> Savings:
        saved = [s for (p, r, _), (_, s) in self.hits.items() if p == project and run in ("", r)]
        return Savings(len(saved), sum(saved, timedelta()))

    async def shadow_savings(
        self, project: str, pipeline: str, finished_after: datetime | None, limit: int
    ) -> list[PipelineShadow]:
        def is_hit(step: Attempt) -> bool:
            return not step.uncacheable_reason and any(
                (other.project, other.fingerprint) == (step.project, step.fingerprint)
                and other.fingerprint
                and other.phase is StepPhase.SUCCEEDED
                and not other.uncacheable_reason
                and not other.not_recorded_reason
                and other.finished_at <= step.finished_at - step.duration
                and (other.finished_at, other.run, other.step) < (step.finished_at, step.run, step.step)
                for other in self.attempts.values()
            )

        ran: dict[str, list[Attempt]] = {}
        for step in self.attempts.values():
            is_chosen = step.project == project and pipeline in ("", step.observed_pipeline)
            is_new = finished_after is None or step.finished_at >= finished_after
            if is_chosen and is_new and step.observed_pipeline is not None and step.phase in EXECUTED:
                ran.setdefault(step.observed_pipeline, []).append(step)
        found = []
        for name, steps in ran.items():
            hits = [step for step in steps if is_hit(step)]
            reasons = Counter(step.uncacheable_reason for step in steps if step.uncacheable_reason)
            found.append(
                PipelineShadow(
                    name,
                    runs=len({step.run for step in steps}),
                    steps=len(steps),
                    hits=len(hits),
                    saved=sum((step.duration for step in hits), timedelta()),
                    saved_pods=sum(step.pods for step in hits),
                    duration=sum((step.duration for step in steps), timedelta()),
                    uncacheable_steps=reasons.total(),
                    uncacheable_reason=reasons.most_common(1)[0][0] if reasons else "",
                )
            )
        return sorted(found, key=lambda each: (-each.saved, each.pipeline))[:limit]


def _candidate(entry: Entry) -> Candidate:
    return Candidate(
        fingerprint=entry.fingerprint,
        static_key=entry.static_key,
        producer_run=entry.producer.run,
        producer_step=entry.producer.step,
        confirmed_at=entry.confirmed_at,
        duration=entry.producer.duration,
        load_outputs=lambda: entry.outputs,
        base_fingerprint=entry.base_fingerprint,
        discovered=entry.inputs.discovered,
    )


@dataclass
class MemoryObjectStore:
    """The ObjectStore of `ports` in memory: contents and times by reference."""

    objects: dict[ObjectRef, tuple[bytes, datetime]] = field(default_factory=dict)
    is_down: bool = False
    version_requests: int = 0
    reads: int = 0

    def put(self, key: str, content: bytes = b"x", at: datetime = NOON - timedelta(hours=1)) -> ObjectRef:
        ref = ObjectRef(key)
        self.objects[ref] = (content, at)
        return ref

    def absolute(self, ref: ObjectRef) -> ObjectRef:
        return ObjectRef(ref.key, ref.bucket or "default", ref.endpoint or "default.example:9000")

    async def versions(self, refs: Collection[ObjectRef]) -> Mapping[ObjectRef, ObjectVersion | None]:
        self._check()
        self.version_requests += len(refs)
        return {ref: self._version(ref) for ref in refs}

    async def is_folder(self, ref: ObjectRef) -> bool:
        self._check()
        return any(other.key.startswith(f"{ref.key}/") for other in self.objects)

    async def changed(
        self, expected: Mapping[ObjectRef, ObjectVersion]
    ) -> Mapping[ObjectRef, ObjectVersion | None]:
        versions = await self.versions(expected)
        return {ref: version for ref, version in versions.items() if version != expected[ref]}

    async def read_digest(self, ref: ObjectRef) -> tuple[VersionedObject, str]:
        self._check()
        self.reads += 1
        version = self._version(ref)
        if version is None:
            raise NotFound("no object")
        return VersionedObject(self.absolute(ref), version), digest.of_bytes(self.objects[ref][0])

    def _version(self, ref: ObjectRef) -> ObjectVersion | None:
        if ref not in self.objects:
            return None
        content, at = self.objects[ref]
        return ObjectVersion(digest.sha256(content)[7:39], len(content), at)

    def _check(self) -> None:
        if self.is_down:
            raise Unavailable("the object store can not be reached")
