"""The record of this service: the Store that `ports` asks for, on Postgres."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from periplus_cache import told
from periplus_cache.attempt import Attempt, Savings
from periplus_cache.entry import Fate, Selector
from periplus_cache.known import Candidate
from periplus_cache.ports import Burial, Earlier, Recording, Seen, Shown, Tombstone
from periplus_cache.store import attempts, contents, entries
from periplus_cache.store.candidates import candidates
from periplus_cache.store.digests import to_bytes
from periplus_cache.store.earlier import earlier
from periplus_common import outbox
from periplus_common.bus import Event
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

    async def record(self, recording: Recording) -> Fate | None:
        """Store what a finished step leaves, and its events. None: it was stored before, or brings no entry."""
        async with self._database.transaction() as connection:
            if not await attempts.add(connection, recording.attempt):
                return None
            if recording.document:
                await _keep_template(connection, recording)
            decided: Fate | None = None
            events: list[Event] = []
            if recording.entry is not None:
                decided, kept = await entries.add(connection, recording.entry, recording.policy)
                events = _events(recording, decided, kept.outputs.differing(recording.entry.outputs))
            if recording.hit is not None:
                await attempts.count(connection, recording.hit)
            if recording.inputs or recording.outputs:
                events += told.digested(recording)
            await outbox.add(connection, events)
            return decided

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


async def _keep_template(connection: Connection, recording: Recording) -> None:
    await connection.execute(
        """
        INSERT INTO template (static_key, project, epoch, document) VALUES ($1, $2, $3, $4)
        ON CONFLICT DO NOTHING
        """,
        to_bytes(recording.attempt.static_key),
        recording.attempt.project,
        recording.epoch,
        recording.document.encode(),
    )


def _events(recording: Recording, decided: Fate, differing: tuple[str, ...]) -> list[Event]:
    assert recording.entry is not None
    if decided in (Fate.ADDED, Fate.REPLACED):
        return [told.recorded(recording.entry)]
    return [told.diverged(recording.entry, differing)] if decided is Fate.DIVERGED else []
