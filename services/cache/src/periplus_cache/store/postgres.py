"""The Store of `ports` on Postgres."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime

from opentelemetry.trace import SpanKind

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
    Hit,
    Invalidation,
    PastInvalidation,
    PipelineShadow,
    Recording,
    Savings,
    VersionedObject,
    WriteOutcome,
    divergence,
)
from periplus_cache.history import PastResult
from periplus_cache.store import attempts, contents, divergences, entries, leases
from periplus_cache.store.candidates import candidates
from periplus_cache.store.comparable import comparable_entries
from periplus_cache.store.history import past_results
from periplus_cache.store.rows import encode_digest
from periplus_cache.wire import published
from periplus_common import outbox, telemetry
from periplus_common.bus import CloudEvent
from periplus_common.postgres import Connection, Database

_hits = telemetry.counter(
    "periplus.cache.hits", unit="{step}", description="Finished steps that were served an entry."
)
_saved = telemetry.counter(
    "periplus.cache.saved", unit="s", description="Run time of the producers of the entries that were served."
)
_results = telemetry.counter(
    "periplus.cache.results",
    unit="{step}",
    description="Results of steps by what became of them: added, unchanged, diverged or replaced (an older entry).",
    attributes=("periplus.outcome",),
)
_diverged = telemetry.counter(
    "periplus.cache.divergences",
    unit="{step}",
    description="Steps that gave other outputs than the entry of their key, those included that refreshed it.",
)
_invalidated = telemetry.counter(
    "periplus.cache.invalidated_entries",
    unit="{entry}",
    description="Entries that were invalidated: because of their objects (object), or by InvalidateEntries (request).",
    attributes=("periplus.cause",),
)


class PostgresStore:
    """Each method does what `ports.Store` says."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def candidates(
        self, project: str, limits: Mapping[str, int], fingerprints: Collection[str], now: datetime
    ) -> tuple[list[Candidate], list[Candidate]]:
        return await candidates(self._database, project, limits, fingerprints, now)

    async def record(self, *recordings: Recording) -> list[WriteOutcome | None]:
        outcomes: dict[int, WriteOutcome | None] = {}
        all_hits: list[Hit] = []
        all_diverged = 0
        failed, recorded = list[int](), list[int]()
        async with self._database.transaction() as connection:
            holders = await leases.lock_current(connection, {r.lease_token for r in recordings} - {0})
            recordings = tuple(r if _is_current(r, holders) else r.fenced() for r in recordings)
            for group in _groups(recordings):
                added = await attempts.add(connection, [recording.attempt for _, recording in group])
                new = [(index, recording) for index, recording in group if _step_key(recording) in added]
                await _add_templates(connection, [recording for _, recording in new])
                outcomes_and_existing = await _add_entries(connection, new)
                events: list[CloudEvent] = []
                diverged: list[Divergence] = []
                for index, recording in new:
                    outcome, existing = outcomes_and_existing.get(index, (None, None))
                    outcomes[index] = outcome
                    found = _divergence(recording, outcome, existing)
                    if found is not None:
                        diverged.append(found)
                    if holders.get(recording.lease_token) == _step_key(recording):
                        (failed if outcome is None else recorded).append(recording.lease_token)
                    events += _events(recording, outcome, found)
                hits = [recording.hit for _, recording in new if recording.hit is not None]
                await divergences.add(connection, diverged)
                all_diverged += len(diverged)
                await attempts.add_hits(connection, hits)
                await entries.renew(connection, hits)
                all_hits += hits
                await outbox.add(connection, events)
            await leases.end(connection, failed, recorded)
        _diverged.add(all_diverged)
        for outcome in outcomes.values():
            if outcome is not None:
                _results.add(1, {"periplus.outcome": outcome.value})
        if all_hits:
            _hits.add(len(all_hits))
            _saved.add(max(0.0, sum(hit.saved.total_seconds() for hit in all_hits)))
        return [outcomes.get(index) for index in range(len(recordings))]

    async def invalidate(self, project: str, invalidations: Collection[Invalidation], now: datetime) -> None:
        count = await entries.invalidate(self._database, project, invalidations, now)
        _invalidated.add(count, {"periplus.cause": "object"})

    async def invalidate_selected(
        self, project: str, selector: EntrySelector, reason: str, now: datetime
    ) -> int:
        count = await entries.invalidate_selected(self._database, project, selector, reason, now)
        _invalidated.add(count, {"periplus.cause": "request"})
        return count

    async def count_selected(self, project: str, selector: EntrySelector) -> int:
        return await entries.count_selected(self._database, project, selector)

    async def entry(self, project: str, fingerprint: str) -> EntryDetails | None:
        return await entries.find(self._database, project, fingerprint)

    async def list_entries(
        self, project: str, chosen: EntryFilter, after: EntryPosition | None, limit: int, now: datetime
    ) -> list[EntryDetails]:
        return await entries.list_page(self._database, project, chosen, after, limit, now)

    async def attempt(self, project: str, run: str, step: str) -> AttemptDetails | None:
        return await attempts.find(self._database, project, run, step)

    async def previous_attempt(self, attempt: Attempt) -> Attempt | None:
        return await attempts.find_previous(self._database, attempt)

    async def past_results(self, project: str, fingerprints: Collection[str]) -> dict[str, PastResult]:
        return await past_results(self._database, project, fingerprints)

    async def last_invalidation(
        self, project: str, fingerprint: str, until: datetime
    ) -> PastInvalidation | None:
        return await entries.last_invalidation(self._database, project, fingerprint, until)

    async def comparable_entries(self, attempt: Attempt) -> Sequence[ComparableEntry]:
        return await comparable_entries(self._database, attempt)

    async def divergences(
        self, project: str, *, run: str = "", fingerprint: str = "", limit: int
    ) -> list[Divergence]:
        return await divergences.find(self._database, project, run, fingerprint, limit)

    async def unresolved_divergences(
        self, project: str, static_keys: Collection[str]
    ) -> dict[str, Divergence]:
        return await divergences.unresolved(self._database, project, static_keys)

    async def recorded_steps(self, project: str, run: str) -> int:
        return await divergences.recorded_steps(self._database, project, run)

    async def savings(self, project: str, run: str) -> Savings:
        return await attempts.savings(self._database, project, run)

    async def shadow_savings(
        self, project: str, pipeline: str, finished_after: datetime | None, limit: int
    ) -> list[PipelineShadow]:
        return await attempts.shadow_savings(self._database, project, pipeline, finished_after, limit)

    async def content_digests(self, objects: Collection[VersionedObject]) -> dict[VersionedObject, str]:
        return await contents.find(self._database, objects)

    async def add_content_digests(self, digests: Mapping[VersionedObject, str]) -> None:
        await contents.add(self._database, digests)


IndexedRecording = tuple[int, Recording]


def _groups(recordings: Sequence[Recording]) -> Iterator[list[IndexedRecording]]:
    """The recordings in groups that have each step once, so that one statement can store a group.

    A group is sorted by project, run and step: transactions that lock the same rows lock them in the same order, so that
    none deadlocks with another.
    """
    remaining = list(enumerate(recordings))
    while remaining:
        group: dict[attempts.StepKey, IndexedRecording] = {}
        for indexed in remaining:
            group.setdefault(_step_key(indexed[1]), indexed)
        indices = {index for index, _ in group.values()}
        yield [group[key] for key in sorted(group)]
        remaining = [indexed for indexed in remaining if indexed[0] not in indices]


def _is_current(recording: Recording, holders: Mapping[int, leases.Holder]) -> bool:
    """Whether a result may be recorded: its step had no lease, or no other run has taken it over."""
    holder = holders.get(recording.lease_token)
    if holder is None:
        return not recording.lease_token
    return holder[:2] == _step_key(recording)[:2]


def _step_key(recording: Recording) -> attempts.StepKey:
    attempt = recording.attempt
    return attempt.project, attempt.run, attempt.step


async def _add_templates(connection: Connection, recordings: Sequence[Recording]) -> None:
    by_static_key = {r.attempt.static_key: r for r in recordings if r.document}
    if not by_static_key:
        return
    rows = sorted(by_static_key.items())
    static_keys = [encode_digest(static_key) for static_key, _ in rows]
    # Retention deletes no template that was used within a day. One that was not is renewed, which locks it, and one that
    # was just deleted is inserted again.
    await connection.execute(
        """
        UPDATE template SET used_at = now()
        WHERE static_key = ANY (ARRAY (
            SELECT static_key FROM template
            WHERE static_key = ANY ($1::bytea[]) AND used_at < now() - interval '1 day'
            ORDER BY static_key FOR UPDATE
        ))
        """,
        static_keys,
    )
    await connection.execute(
        """
        INSERT INTO template (static_key, project, epoch, document)
        SELECT * FROM unnest($1::bytea[], $2::text[], $3::int[], $4::bytea[])
        ON CONFLICT DO NOTHING
        """,
        static_keys,
        [recording.attempt.project for _, recording in rows],
        [recording.epoch for _, recording in rows],
        [recording.document.encode() for _, recording in rows],
    )


async def _add_entries(
    connection: Connection, recordings: Sequence[IndexedRecording]
) -> dict[int, tuple[WriteOutcome, Entry | None]]:
    """Store the entries of recordings. By index: what became of an entry, and the entry that was there before."""
    indexed = sorted(
        ((index, r.entry, r.policy) for index, r in recordings if r.entry is not None),
        key=lambda each: each[1].fingerprint,
    )
    outcomes = await entries.add(connection, [(entry, policy) for _, entry, policy in indexed])
    return {index: outcome for (index, _, _), outcome in zip(indexed, outcomes, strict=True)}


def _divergence(
    recording: Recording, outcome: WriteOutcome | None, existing: Entry | None
) -> Divergence | None:
    """The divergence of a result from the entry of its key, if there is one."""
    if recording.entry is None or existing is None or outcome is None:
        return None
    return divergence(recording.entry, existing, outcome, recording.policy)


def _events(
    recording: Recording, outcome: WriteOutcome | None, diverged: Divergence | None
) -> list[CloudEvent]:
    """The events of a recording, in the trace of its step."""
    new = recording.entry
    events: list[CloudEvent] = []
    with telemetry.span_from_headers("record step", recording.trace_headers, SpanKind.CONSUMER):
        if new is not None and outcome in (WriteOutcome.ADDED, WriteOutcome.REPLACED):
            events.append(published.entry_recorded(new))
        elif new is not None and diverged is not None:
            events.append(published.entry_diverged(new, diverged.outputs))
        if recording.inputs or recording.outputs:
            events += published.artifacts_digested(recording)
    return events
