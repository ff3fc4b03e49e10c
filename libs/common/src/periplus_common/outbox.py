"""Events that leave with the transaction that caused them, or not at all."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import asyncpg

from periplus_common.bus import Event, Untaken
from periplus_common.errors import Unavailable
from periplus_common.postgres import Connection, Database
from periplus_common.runtime import beside

log = logging.getLogger(__name__)

BATCH = 256
PATIENCE = 5.0  # seconds between looks when no notice comes: a lost notice delays, and loses nothing
PAUSE = 0.5  # seconds before a relay that failed, or that does not lead, tries again

# The server forgets a relay, and its lead, whose machine is gone, after some twenty seconds and not two hours.
_KEEPALIVE = {"tcp_keepalives_idle": "10", "tcp_keepalives_interval": "5", "tcp_keepalives_count": "2"}

_CUT = (asyncpg.InterfaceError, asyncpg.InternalClientError)
"""What the driver says of a connection that ended under its hands."""

Publish = Callable[[Sequence[Event]], Awaitable[None]]


async def add(connection: Connection, events: Sequence[Event]) -> None:
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
async def relaying(database: Database, dsn: str, publish: Publish) -> AsyncIterator[None]:
    """Publish what is queued for as long as the block is open, woken by each commit that queues.

    Of many relays of one schema, one publishes; another takes over when that one ends, loses its connection,
    or can not publish.
    """
    async with beside(_relay(database, dsn, publish)):
        yield


async def _relay(database: Database, dsn: str, publish: Publish) -> None:
    while True:
        try:
            async with _listening(dsn) as (listener, queued):
                await _lead(listener)
                await _publish_queued(database, listener, queued, publish)
        except (Unavailable, OSError, asyncpg.PostgresError, *_CUT) as error:
            # Leaving let go of the lead, too: another relay may reach what this one can not.
            log.warning("the outbox waits: %s", str(error) or type(error).__name__)
            await asyncio.sleep(PAUSE)


async def _publish_queued(
    database: Database, listener: asyncpg.Connection, queued: asyncio.Event, publish: Publish
) -> None:
    while True:
        queued.clear()
        while await relay_batch(database, publish) == BATCH:
            pass
        try:
            await asyncio.wait_for(queued.wait(), PATIENCE)
        except TimeoutError:
            # A peer that vanished without a word would leave us deaf, and leading no more.
            await listener.fetchval("SELECT 1", timeout=PATIENCE)


@asynccontextmanager
async def _listening(dsn: str) -> AsyncIterator[tuple[asyncpg.Connection, asyncio.Event]]:
    """A connection of its own, and an event that each notice and the connection's end set."""
    queued = asyncio.Event()
    connection = await asyncpg.connect(dsn, timeout=10, server_settings=_KEEPALIVE)
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


async def relay_batch(database: Database, publish: Publish) -> int:
    """Publish, then delete, and hold no connection in between. A crash repeats events and never loses one."""
    async with database.connection() as connection:
        rows = await connection.fetch(
            "SELECT id, subject, headers, body FROM outbox ORDER BY id LIMIT $1", BATCH
        )
    if not rows:
        return 0
    try:
        await publish([Event(r["subject"], json.loads(r["headers"]), r["body"]) for r in rows])
    except Untaken as error:
        # One that is never taken must not keep the others here.
        await _delete(database, [r["id"] for i, r in enumerate(rows) if i not in error.places])
        raise
    await _delete(database, [r["id"] for r in rows])
    return len(rows)


async def _delete(database: Database, ids: Sequence[int]) -> None:
    async with database.connection() as connection:
        await connection.execute("DELETE FROM outbox WHERE id = ANY($1)", ids)
