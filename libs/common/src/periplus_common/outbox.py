"""Events that leave with the transaction that caused them, or not at all, and that a lost stream gets again."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Protocol

import asyncpg

from periplus_common.bus import CloudEvent, NotStored, StreamState
from periplus_common.errors import Unavailable
from periplus_common.postgres import Connection, Row
from periplus_common.runtime import background_task

log = logging.getLogger(__name__)

BATCH = 256
PATIENCE = 5.0  # seconds between looks when no notice comes: a lost notice delays, and loses nothing
PAUSE = 0.5  # seconds before a relay that failed, or that does not lead, tries again

# The server forgets a relay, and its lead, whose machine is gone, after some twenty seconds and not two hours.
_KEEPALIVE = {"tcp_keepalives_idle": "10", "tcp_keepalives_interval": "5", "tcp_keepalives_count": "2"}

_CUT = (asyncpg.InterfaceError, asyncpg.InternalClientError)
"""What the driver says of a connection that ended under its hands."""

Publish = Callable[[Sequence[CloudEvent]], Awaitable[Sequence[int]]]

KEPT = timedelta(minutes=10)
"""How long an event stays at least: a consumer may be unknown to the server that has just lost its streams."""
LONGEST = timedelta(days=14)
"""How long it stays at most, whoever has not handled it: as long as in its stream."""


class Publisher(Protocol):
    """Who publishes, and knows of streams: a link."""

    async def publish_events(self, events: Sequence[CloudEvent]) -> Sequence[int]:
        """Their sequences in the stream. Raises `NotStored`, `Unavailable`."""

    async def stream_state(self, name: str) -> StreamState:
        """A stream as it is now. Raises `Unavailable`."""

    def on_reconnect(self, call: Callable[[], None]) -> None:
        """Have `call` called whenever the connection is there again."""


async def add(connection: Connection, events: Sequence[CloudEvent]) -> None:
    """Queue events on the caller's own transaction."""
    if events:
        await connection.execute(
            """
            INSERT INTO outbox (subject, headers, body)
            SELECT * FROM unnest($1::text[], $2::jsonb[], $3::bytea[])
            """,
            [event.subject for event in events],
            [json.dumps(event.headers) for event in events],
            [event.body for event in events],
        )


@asynccontextmanager
async def relaying(dsn: str, link: Publisher, stream: str) -> AsyncIterator[None]:
    """Publish what is queued to a stream for as long as the block is open, woken by each commit that queues.

    Of many relays of one schema, one publishes; another takes over when that one ends, loses its connection,
    or can not publish.
    """
    async with background_task(_Relay(link, stream).relay(dsn)):
        yield


class _Relay:
    """Publishes what is queued, and again what the stream has lost."""

    def __init__(self, link: Publisher, stream: str) -> None:
        self._link = link
        self._stream = stream
        self._due = asyncio.Event()  # to look at the stream: another server may be there than before
        link.on_reconnect(self._due.set)

    async def relay(self, dsn: str) -> None:
        clock, pause = asyncio.get_running_loop().time, PAUSE
        while True:
            began = clock()
            self._due.set()
            try:
                async with _listening(dsn) as (connection, queued):
                    await _lead(connection)
                    await self._publish_queued(connection, queued)
            except (Unavailable, OSError, asyncpg.PostgresError, *_CUT) as error:
                # Leaving let go of the lead, too: another relay may reach what this one can not.
                log.warning("the outbox waits: %s", str(error) or type(error).__name__)
                await asyncio.sleep(pause)
                pause = PAUSE if clock() - began > 2 * PATIENCE else min(2 * pause, PATIENCE)

    async def _publish_queued(self, connection: asyncpg.Connection, queued: asyncio.Event) -> None:
        clock, looked = asyncio.get_running_loop().time, 0.0
        while True:
            queued.clear()
            if self._due.is_set() or clock() - looked >= PATIENCE:
                self._due.clear()
                looked = clock()
                await reconcile(connection, await self._link.stream_state(self._stream))
            while (
                not self._due.is_set() and await relay_batch(connection, self._link.publish_events) == BATCH
            ):
                pass
            if self._due.is_set():
                continue
            with suppress(TimeoutError):
                await asyncio.wait_for(queued.wait(), PATIENCE)


@asynccontextmanager
async def _listening(dsn: str) -> AsyncIterator[tuple[asyncpg.Connection, asyncio.Event]]:
    """A connection of its own, and an event that each notice and the connection's end set."""
    queued = asyncio.Event()
    connection = await asyncpg.connect(dsn, timeout=10, command_timeout=10, server_settings=_KEEPALIVE)
    try:
        connection.add_termination_listener(lambda _: queued.set())
        schema = await connection.fetchval("SELECT current_schema()")
        await connection.add_listener(f"outbox_{schema}", lambda *_: queued.set())
        yield connection, queued
    finally:
        connection.terminate()  # waits for nobody: a server that hangs must not hold up our end


async def _lead(connection: asyncpg.Connection) -> None:
    """Wait until no other relay of this schema publishes.

    A lock of the session, and not of rows: those would take a transaction that is open while NATS is waited for.
    It is asked for again and again, as a statement that waits would keep the server from vacuuming.
    """
    question = "SELECT pg_try_advisory_lock(hashtext('outbox ' || current_schema()))"
    while not await connection.fetchval(question, timeout=PATIENCE):  # noqa: ASYNC110 - a lock has no event
        await asyncio.sleep(PAUSE)


async def reconcile(connection: asyncpg.Connection, stream: StreamState) -> None:
    """Have all published again that the stream has lost, and delete what all its consumers have handled."""
    async with connection.transaction():
        known = await connection.fetchval("SELECT created FROM outbox_stream")
        if known != stream.created_at:
            await connection.execute("DELETE FROM outbox_stream")
            await connection.execute("INSERT INTO outbox_stream (created) VALUES ($1)", stream.created_at)
        lost = await connection.execute(
            "UPDATE outbox SET sequence = NULL WHERE sequence > $1",
            stream.last_sequence if known == stream.created_at else 0,
        )
        if lost != "UPDATE 0":
            log.warning("the stream has lost events, which are published again: %s", lost)
        await connection.execute(
            """
            DELETE FROM outbox
            WHERE sequence <= $1 AND queued_at < now() - $2::interval
                OR sequence IS NOT NULL AND queued_at < now() - $3::interval
            """,
            stream.acknowledged_sequence, KEPT, LONGEST,
        )  # fmt: skip


async def relay_batch(connection: asyncpg.Connection, publish: Publish) -> int:
    """Publish, then note where, and hold no transaction in between. A crash repeats events and never loses one."""
    rows = await connection.fetch(
        "SELECT id, subject, headers, body FROM outbox WHERE sequence IS NULL ORDER BY tries, id LIMIT $1",
        BATCH,
    )
    if not rows:
        return 0
    try:
        taken: Mapping[int, int] = dict(enumerate(await publish([_event(row) for row in rows])))
    except NotStored as error:
        await _note(connection, {rows[place]["id"]: sequence for place, sequence in error.stored.items()})
        # What is never taken must not keep the others here: it stands behind them from now on.
        await _put_back(
            connection, [row["id"] for place, row in enumerate(rows) if place not in error.stored]
        )
        raise
    await _note(connection, {rows[place]["id"]: sequence for place, sequence in taken.items()})
    return len(rows)


def _event(row: Row) -> CloudEvent:
    return CloudEvent(row["subject"], json.loads(row["headers"]), row["body"])


async def _note(connection: asyncpg.Connection, sequences: Mapping[int, int]) -> None:
    await connection.execute(
            """
            UPDATE outbox SET sequence = taken.sequence
            FROM unnest($1::bigint[], $2::bigint[]) AS taken (id, sequence) WHERE outbox.id = taken.id
            """,
            list(sequences), list(sequences.values()),
        )  # fmt: skip


async def _put_back(connection: asyncpg.Connection, ids: Sequence[int]) -> None:
    await connection.execute("UPDATE outbox SET tries = tries + 1 WHERE id = ANY($1)", ids)
