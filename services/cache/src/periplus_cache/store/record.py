"""The record of this service: the Store that `ports` asks for, on Postgres."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime

from opentelemetry.trace import SpanKind

from periplus_cache import told
from periplus_cache.attempt import Attempt, Savings
from periplus_cache.entry import Entry, Fate, Selector
from periplus_cache.known import Candidate
from periplus_cache.ports import Burial, Earlier, Recording, Seen, Shown, Tombstone
from periplus_cache.store import attempts, contents, entries
from periplus_cache.store.candidates import candidates
from periplus_cache.store.digests import to_bytes
from periplus_cache.store.earlier import earlier
from periplus_common import outbox, telemetry
from periplus_common.bus import CloudEvent
from periplus_common.postgres import Connection, Database


class PostgresStore:
    """The record in Postgres."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def candidates(
        self, project: str, limits: Mapping[str, int], fingerprints: Collection[str], now: datetime
    ) -> tuple[list[Candidate], list[Candidate]]:
        """Live entries by static key, and those with these fingerprints."""
        return await candidates(self._database, project, limits, fingerprints, now)

    async def record(self, *recordings: Recording) -> list[Fate | None]:
        """Store what finished steps leave, and their events. None: it was stored before, or brings no entry."""
        fates: dict[int, Fate | None] = {}
        async with self._database.transaction() as connection:
            for wave in _waves(recordings):
                fresh = await attempts.add(connection, [recording.attempt for _, recording in wave])
                came = [(place, recording) for place, recording in wave if _key(recording) in fresh]
                await _keep_templates(connection, [recording for _, recording in came])
                events: list[CloudEvent] = []
                for place, recording in sorted(came, key=_fingerprint):
                    with telemetry.continuing("record", recording.trace, SpanKind.CONSUMER):
                        fates[place], told_of = await _keep(connection, recording)
                    events += told_of
                await attempts.count(connection, [r.hit for _, r in came if r.hit is not None])
                await outbox.add(connection, events)
        return [fates.get(place) for place in range(len(recordings))]

    async def bury(self, project: str, burials: Collection[Burial], now: datetime) -> None:
        """Take entries out of use, and tell of it. Those that are buried, or made anew since, stay as they are."""
        await entries.bury(self._database, project, burials, now)

    async def invalidate(
        self, project: str, selector: Selector, reason: str, now: datetime, *, only_count: bool
    ) -> int:
        """Take the selected live entries out of use, tell of it, and say how many they are."""
        return await entries.invalidate(self._database, project, selector, reason, now, only_count=only_count)

    async def digests(self, seen: Collection[Seen]) -> dict[Seen, str]:
        """The digests of those of these objects that were read before."""
        return await contents.find(self._database, seen)

    async def remember(self, digests: Mapping[Seen, str]) -> None:
        """Keep the digests of objects."""
        await contents.keep(self._database, digests)

    async def attempt(self, project: str, run: str, step: str) -> tuple[Attempt, str, int] | None:
        """A step as it was seen to end, with its template's document and epoch."""
        return await attempts.find(self._database, project, run, step)

    async def same(self, attempt: Attempt) -> Attempt | None:
        """The last step of another run that did just this, or tried to."""
        return await attempts.same(self._database, attempt)

    async def tombstone(self, project: str, fingerprint: str, until: datetime) -> Tombstone | None:
        """The last time that an entry with this fingerprint was taken out of use."""
        return await entries.tombstone(self._database, project, fingerprint, until)

    async def earlier(self, attempt: Attempt) -> Sequence[Earlier]:
        """Entries that were there when the step ended, to compare it with."""
        return await earlier(self._database, attempt)

    async def entry(self, project: str, fingerprint: str) -> Shown | None:
        """An entry, buried or not."""
        return await entries.shown(self._database, project, fingerprint)

    async def savings(self, project: str, run: str) -> Savings:
        """What hits saved."""
        return await attempts.savings(self._database, project, run)


Wave = list[tuple[int, Recording]]
"""Recordings with their places, each of another step."""


def _waves(recordings: Sequence[Recording]) -> Iterator[Wave]:
    """What is told of one step twice comes one after the other; all else together, in the order of their keys.

    That order is the same for all, so that two who record at the same time wait for each other and never in a ring.
    """
    rest: Wave = list(enumerate(recordings))
    while rest:
        firsts: dict[attempts.Key, tuple[int, Recording]] = {}
        for each in rest:
            firsts.setdefault(_key(each[1]), each)
        places = {place for place, _ in firsts.values()}
        yield [firsts[key] for key in sorted(firsts)]
        rest = [each for each in rest if each[0] not in places]


def _key(recording: Recording) -> attempts.Key:
    attempt = recording.attempt
    return attempt.project, attempt.run, attempt.step


def _fingerprint(each: tuple[int, Recording]) -> str:
    return each[1].attempt.fingerprint


async def _keep_templates(connection: Connection, recordings: Sequence[Recording]) -> None:
    documents = {r.attempt.static_key: r for r in recordings if r.document}
    await connection.executemany(
        """
        INSERT INTO template (static_key, project, epoch, document) VALUES ($1, $2, $3, $4)
        ON CONFLICT DO NOTHING
        """,
        [
            (to_bytes(static_key), r.attempt.project, r.epoch, r.document.encode())
            for static_key, r in sorted(documents.items())
        ],
    )


async def _keep(connection: Connection, recording: Recording) -> tuple[Fate | None, list[CloudEvent]]:
    """Store the entry that a step brings, if it does; what became of it, and what is to be told."""
    decided: Fate | None = None
    events: list[CloudEvent] = []
    if recording.entry is not None:
        decided, kept = await entries.add(connection, recording.entry, recording.policy)
        events = _events(recording.entry, decided, kept.outputs.differing(recording.entry.outputs))
    if recording.inputs or recording.outputs:
        events += told.digested(recording)
    return decided, events


def _events(came: Entry, decided: Fate, differing: tuple[str, ...]) -> list[CloudEvent]:
    if decided in (Fate.ADDED, Fate.REPLACED):
        return [told.recorded(came)]
    return [told.diverged(came, differing)] if decided is Fate.DIVERGED else []
