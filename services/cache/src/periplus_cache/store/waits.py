"""Which runs' waits for a lease have ended: of all replicas, by NOTIFY, and by a sweep for leases that expired."""

import asyncio
import json
import logging
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from periplus_cache.lease.unit import LeaseTimings
from periplus_cache.store.leases import CHANNEL
from periplus_common import postgres
from periplus_common.errors import Unavailable
from periplus_common.runtime import background_task

log = logging.getLogger(__name__)

ENDED_CHANNEL = f"{CHANNEL}_ended"
"""A notification on it, followed by `_` and the schema, has runs whose waits have ended."""
_CONNECT_SECONDS = 10.0
_RETRY_SECONDS = 1.0
_MAX_PAYLOAD_BYTES = 7000  # Postgres takes less than 8,000

# All who wait for a lease that is gone, as its step was recorded; of those who wait for one that expired, the first: it is the next
# to take it, and the others wait for it in turn. Its wait is over: if it does not ask again, the next sweep takes the next.
_SWEEP = """
    WITH due AS (
        SELECT wait.project, wait.run, wait.step, lease.fingerprint IS NULL AS is_gone,
               row_number() OVER (PARTITION BY wait.project, wait.fingerprint ORDER BY wait.since, wait.run, wait.step) AS place
        FROM lease_wait AS wait LEFT JOIN lease USING (project, fingerprint)
        WHERE (lease.fingerprint IS NULL OR lease.expires_at <= now()) AND wait.expires_at > now()
    )
    DELETE FROM lease_wait AS wait USING due
    WHERE (due.is_gone OR due.place = 1)
      AND (wait.project, wait.run, wait.step) = (due.project, due.run, due.step)
    RETURNING wait.project, wait.run
"""


class _Subscriber:
    """The runs that a caller has not been given yet. `is_lost`: ends may have been missed."""

    def __init__(self) -> None:
        self.runs: set[str] = set()
        self.is_lost = False
        self.changed = asyncio.Event()


class EndedWaits:
    """Gives the runs whose waits have ended to those who watch. Without a watcher it has no connection and sweeps nothing."""

    def __init__(self, timings: LeaseTimings) -> None:
        self._timings = timings
        self._subscribers: dict[str, set[_Subscriber]] = defaultdict(set)
        self._is_wanted = asyncio.Event()
        self._is_listening = asyncio.Event()
        self._is_stopping = False

    async def watch(self, project: str) -> AsyncGenerator[list[str]]:
        """Runs of a project whose waits have ended; first none, when none is missed any more. Raises `Unavailable`."""
        subscriber = _Subscriber()
        self._subscribers[project].add(subscriber)
        self._is_wanted.set()
        try:
            try:
                async with asyncio.timeout(_CONNECT_SECONDS):
                    await self._is_listening.wait()
            except TimeoutError as error:
                raise Unavailable("Postgres can not be reached") from error
            yield []
            while not self._is_stopping:
                await subscriber.changed.wait()
                subscriber.changed.clear()
                if subscriber.is_lost:
                    raise Unavailable("the connection to Postgres was lost")
                runs, subscriber.runs = subscriber.runs, set()
                if runs:
                    yield sorted(runs)
        finally:
            self._subscribers[project].discard(subscriber)
            if not self._subscribers[project]:
                del self._subscribers[project]
            if not self._subscribers:
                self._is_wanted.clear()

    @asynccontextmanager
    async def listening(self, dsn: str) -> AsyncIterator[None]:
        """Listen for as long as the block is open, while anyone watches. On exit the calls of all who watch return."""
        async with background_task(self._listen(dsn)):
            try:
                yield
            finally:
                self._is_stopping = True
                self._wake_all()

    async def _listen(self, dsn: str) -> None:
        while True:
            await self._is_wanted.wait()
            try:
                await self._listen_once(dsn)
            except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                log.warning("waits for leases end late until Postgres can be reached: %s", error)
                self._is_listening.clear()
                for subscriber in (each for all_of in self._subscribers.values() for each in all_of):
                    subscriber.is_lost = True
                self._wake_all()
                await asyncio.sleep(_RETRY_SECONDS)

    async def _listen_once(self, dsn: str) -> None:
        connection = await postgres.connect(dsn, timeout=_CONNECT_SECONDS)
        is_due = asyncio.Event()
        try:
            connection.add_termination_listener(lambda _: is_due.set())
            schema = await connection.fetchval("SELECT current_schema()")
            await connection.add_listener(f"{CHANNEL}_{schema}", lambda *_: is_due.set())
            await connection.add_listener(f"{ENDED_CHANNEL}_{schema}", lambda *a: self._on_ended(str(a[-1])))
            self._is_listening.set()
            while self._subscribers:
                is_due.clear()
                await _sweep(connection, schema)
                try:
                    async with asyncio.timeout(self._timings.sweep.total_seconds()):
                        await is_due.wait()
                except TimeoutError:
                    continue
        finally:
            self._is_listening.clear()
            connection.terminate()

    def _on_ended(self, payload: str) -> None:
        for project, run in json.loads(payload):
            for subscriber in self._subscribers.get(project, ()):
                subscriber.runs.add(run)
                subscriber.changed.set()

    def _wake_all(self) -> None:
        for subscribers in self._subscribers.values():
            for subscriber in subscribers:
                subscriber.changed.set()


async def _sweep(connection: asyncpg.Connection, schema: str) -> None:
    """End waits, and notify all replicas of it in the same transaction."""
    async with connection.transaction():
        rows = await connection.fetch(_SWEEP, timeout=_CONNECT_SECONDS)
        part: list[tuple[str, str]] = []
        size = 0
        payloads: list[str] = []
        for row in sorted({(row["project"], row["run"]) for row in rows}):
            length = len(json.dumps(row)) + 2
            if part and size + length > _MAX_PAYLOAD_BYTES:
                payloads.append(json.dumps(part))
                part, size = [], 0
            part.append(row)
            size += length
        if part:
            payloads.append(json.dumps(part))
        for payload in payloads:
            await connection.execute("SELECT pg_notify($1, $2)", f"{ENDED_CHANNEL}_{schema}", payload)
