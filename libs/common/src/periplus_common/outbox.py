"""Events that are published once their transaction has committed, and again where the stream has lost them."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

import asyncpg

from periplus_common import postgres, telemetry
from periplus_common.bus import CloudEvent, NotStored, StreamState
from periplus_common.errors import Unavailable
from periplus_common.postgres import Connection, Row
from periplus_common.runtime import background_task

log = logging.getLogger(__name__)

# Postgres drops the relay of a machine that is gone, and with it its lock, after some twenty seconds and not two hours.
_KEEPALIVE = {"tcp_keepalives_idle": "10", "tcp_keepalives_interval": "5", "tcp_keepalives_count": "2"}

_CONNECTION_LOST = (asyncpg.InterfaceError, asyncpg.InternalClientError)
"""What asyncpg raises when its connection ended during a call."""
_unpublished = telemetry.gauge(
    "periplus.outbox.unpublished",
    unit="{event}",
    description="Events in the outbox that their stream does not have yet.",
    attributes=("messaging.destination.name",),
)
_age = telemetry.gauge(
    "periplus.outbox.age",
    unit="s",
    description="Age of the oldest event in the outbox that its stream does not have yet; 0 without any.",
    attributes=("messaging.destination.name",),
)


@dataclass(frozen=True)
class OutboxSettings:
    """Bounds and delays of the relay; a test passes shorter ones."""

    batch: int = 256
    """Events that are published at the same time."""
    poll_interval: timedelta = timedelta(seconds=5)
    """Between two looks at the table and the stream without a notification, which may get lost."""
    retry_delay: timedelta = timedelta(milliseconds=500)
    """Before a relay that failed, or that another one keeps from publishing, tries again."""
    min_retention: timedelta = timedelta(minutes=10)
    """How long an acknowledged event stays: a server that lost its streams may not report all their consumers."""
    max_retention: timedelta = timedelta(days=14)
    """How long a published event stays without an acknowledgement: as long as in its stream."""


class Publisher(Protocol):
    """What the relay needs of a `Broker`."""

    async def publish_events(self, events: Sequence[CloudEvent]) -> Sequence[int]:
        """Their sequences in the stream. Raises `NotStored`, `Unavailable`."""

    async def stream_state(self, name: str) -> StreamState:
        """A stream as it is now. Raises `Unavailable`."""

    def on_reconnect(self, callback: Callable[[], None]) -> None:
        """Have `callback` called whenever a lost connection was made again."""


Publish = Callable[[Sequence[CloudEvent]], Awaitable[Sequence[int]]]


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
async def relaying(
    dsn: str, publisher: Publisher, stream: str, *, settings: OutboxSettings | None = None
) -> AsyncIterator[None]:
    """Publish queued events to a stream for as long as the block is open, notified by each commit that queues some.

    Of many relays of one schema, one publishes. Another takes over when that one ends, loses its connection, or can
    not publish.
    """
    async with background_task(_Relay(publisher, stream, settings or OutboxSettings()).relay(dsn)):
        yield


class _Relay:
    """Publishes what is queued, and again what the stream has lost."""

    def __init__(self, publisher: Publisher, stream: str, settings: OutboxSettings) -> None:
        self._publisher = publisher
        self._stream = stream
        self._settings = settings
        self._reconcile_due = asyncio.Event()  # after a reconnect the server, and its streams, may be others
        publisher.on_reconnect(self._reconcile_due.set)

    async def relay(self, dsn: str) -> None:
        clock = asyncio.get_running_loop().time
        poll, first_delay = (
            value.total_seconds() for value in (self._settings.poll_interval, self._settings.retry_delay)
        )
        delay = first_delay
        while True:
            started = clock()
            self._reconcile_due.set()
            try:
                async with _listening(dsn) as (connection, notified):
                    await self._lock(connection)
                    await self._publish_queued(connection, notified)
            except (Unavailable, OSError, asyncpg.PostgresError, *_CONNECTION_LOST) as error:
                # The connection is closed, which unlocks: another relay may reach what this one can not.
                log.warning("the outbox waits: %s", str(error) or type(error).__name__)
                await asyncio.sleep(delay)
                delay = first_delay if clock() - started > 2 * poll else min(2 * delay, poll)

    async def _lock(self, connection: asyncpg.Connection) -> None:
        """Wait until no other relay of this schema publishes.

        A lock of the session, and not of rows: those would need a transaction that stays open while NATS answers.
        It is polled, as a statement that waits would keep the server from vacuuming.
        """
        poll, delay = self._settings.poll_interval.total_seconds(), self._settings.retry_delay.total_seconds()
        try_lock = "SELECT pg_try_advisory_lock(hashtext('outbox ' || current_schema()))"
        while not await connection.fetchval(try_lock, timeout=poll):  # noqa: ASYNC110 - a lock has no event
            await asyncio.sleep(delay)

    async def _publish_queued(self, connection: asyncpg.Connection, notified: asyncio.Event) -> None:
        clock, poll = asyncio.get_running_loop().time, self._settings.poll_interval.total_seconds()
        reconciled_at = -poll
        while True:
            notified.clear()
            if self._reconcile_due.is_set() or clock() - reconciled_at >= poll:
                self._reconcile_due.clear()
                reconciled_at = clock()
                if telemetry.enabled():
                    await self._measure(connection)
                await reconcile(connection, await self._publisher.stream_state(self._stream), self._settings)
            while not self._reconcile_due.is_set():
                if (
                    await relay_batch(connection, self._publisher.publish_events, self._settings)
                    < self._settings.batch
                ):
                    break
            if not self._reconcile_due.is_set():
                with suppress(TimeoutError):
                    async with asyncio.timeout(poll):
                        await notified.wait()

    async def _measure(self, connection: asyncpg.Connection) -> None:
        row = await connection.fetchrow(
            """
            SELECT count(*) AS count, coalesce(extract(epoch FROM now() - min(queued_at)), 0)::float8 AS age
            FROM outbox WHERE sequence IS NULL
            """
        )
        assert row is not None
        _unpublished.set(row["count"], {"messaging.destination.name": self._stream})
        _age.set(row["age"], {"messaging.destination.name": self._stream})


@asynccontextmanager
async def _listening(dsn: str) -> AsyncIterator[tuple[asyncpg.Connection, asyncio.Event]]:
    """A connection of its own, and an event that each notification and the connection's end set."""
    notified = asyncio.Event()
    connection = await postgres.connect(dsn, timeout=10, command_timeout=10, server_settings=_KEEPALIVE)
    try:
        connection.add_termination_listener(lambda _: notified.set())
        schema = await connection.fetchval("SELECT current_schema()")
        await connection.add_listener(f"outbox_{schema}", lambda *_: notified.set())
        yield connection, notified
    finally:
        connection.terminate()  # without waiting: a server that hangs must not hold up our end


async def reconcile(connection: asyncpg.Connection, stream: StreamState, settings: OutboxSettings) -> None:
    """Mark events that the stream has lost as not published, and delete those that all its consumers acknowledged."""
    async with connection.transaction():
        stream_created_at = await connection.fetchval("SELECT stream_created_at FROM outbox_stream")
        if stream_created_at != stream.created_at:
            await connection.execute("DELETE FROM outbox_stream")
            await connection.execute(
                "INSERT INTO outbox_stream (stream_created_at) VALUES ($1)", stream.created_at
            )
        lost = await connection.execute(
            "UPDATE outbox SET sequence = NULL WHERE sequence > $1",
            stream.last_sequence if stream_created_at == stream.created_at else 0,
        )
        if lost != "UPDATE 0":
            log.warning("the stream has lost events, which are published again: %s", lost)
        await connection.execute(
            """
            DELETE FROM outbox
            WHERE sequence <= $1 AND queued_at < now() - $2::interval
                OR sequence IS NOT NULL AND queued_at < now() - $3::interval
            """,
            stream.acknowledged_sequence, settings.min_retention, settings.max_retention,
        )  # fmt: skip


async def relay_batch(connection: asyncpg.Connection, publish: Publish, settings: OutboxSettings) -> int:
    """Publish a batch, then store the sequences: how many events it had.

    No transaction is open meanwhile. A crash between the two publishes again, which JetStream recognises by the id.
    """
    rows = await connection.fetch(
        "SELECT id, subject, headers, body FROM outbox WHERE sequence IS NULL ORDER BY tries, id LIMIT $1",
        settings.batch,
    )
    if not rows:
        return 0
    try:
        stored: Mapping[int, int] = dict(enumerate(await publish([_event(row) for row in rows])))
    except NotStored as error:
        await _store_sequences(
            connection, {rows[index]["id"]: sequence for index, sequence in error.stored.items()}
        )
        # Later than the others next time: an event that is never stored must not hold them up.
        refused = [row["id"] for index, row in enumerate(rows) if index not in error.stored]
        await connection.execute("UPDATE outbox SET tries = tries + 1 WHERE id = ANY($1)", refused)
        raise
    await _store_sequences(connection, {rows[index]["id"]: sequence for index, sequence in stored.items()})
    return len(rows)


def _event(row: Row) -> CloudEvent:
    return CloudEvent(row["subject"], json.loads(row["headers"]), row["body"])


async def _store_sequences(connection: asyncpg.Connection, sequences: Mapping[int, int]) -> None:
    await connection.execute(
            """
            UPDATE outbox SET sequence = stored.sequence
            FROM unnest($1::bigint[], $2::bigint[]) AS stored (id, sequence) WHERE outbox.id = stored.id
            """,
            list(sequences), list(sequences.values()),
        )  # fmt: skip
