"""Events that leave with the transaction that caused them, or not at all."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import asyncpg

from periplus_common.bus import Event
from periplus_common.errors import Unavailable
from periplus_common.postgres import Connection, Database
from periplus_common.runtime import beside

log = logging.getLogger(__name__)

BATCH = 256
PATIENCE = 5.0  # seconds between looks when no notice comes: a lost notice delays, and loses nothing

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
    """Publish what is queued for as long as the block is open, woken by each commit that queues."""
    async with beside(_relay(database, dsn, publish)):
        yield


async def _relay(database: Database, dsn: str, publish: Publish) -> None:
    queued = asyncio.Event()
    listener: asyncpg.Connection | None = None
    try:
        while True:
            try:
                if listener is None or listener.is_closed():
                    listener = await _listen(dsn, queued)
                queued.clear()
                while await relay_batch(database, publish) == BATCH:
                    pass
                await asyncio.wait_for(queued.wait(), PATIENCE)
            except TimeoutError:
                continue
            except (Unavailable, OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                log.warning("the outbox waits: %s", error)
                await asyncio.sleep(0.5)
    finally:
        if listener is not None:
            await listener.close()


async def _listen(dsn: str, queued: asyncio.Event) -> asyncpg.Connection:
    connection = await asyncpg.connect(dsn)
    schema = await connection.fetchval("SELECT current_schema()")
    await connection.add_listener(f"outbox_{schema}", lambda *_: queued.set())
    return connection


async def relay_batch(database: Database, publish: Publish) -> int:
    """Publish, then delete. A crash in between repeats events and never loses one."""
    async with database.transaction() as connection:
        rows = await connection.fetch(
            "SELECT id, subject, headers, body FROM outbox ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED",
            BATCH,
        )
        if rows:
            await publish([Event(r["subject"], json.loads(r["headers"]), r["body"]) for r in rows])
            await connection.execute("DELETE FROM outbox WHERE id = ANY($1)", [r["id"] for r in rows])
        return len(rows)
