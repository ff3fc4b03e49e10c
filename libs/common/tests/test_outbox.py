"""Events are published once their transaction has committed, whichever server or process fails in between."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from periplus.cache.v1.events_pb2 import EntryRecorded
from periplus_common import bus, outbox, postgres
from periplus_common.bus import Broker, BusSettings, CloudEvent, StreamState
from periplus_common.errors import Unavailable
from periplus_common.outbox import OutboxSettings
from periplus_common.postgres import Database
from periplus_local.stack.testing import Servers


def event(key: str, run: str = "r") -> CloudEvent:
    return bus.cloud_event(
        EntryRecorded(project="p", producer_run=run, producer_step=key),
        project="p",
        run=run,
        key=key,
        at=datetime.now(UTC),
    )


@pytest.fixture
async def opened(dsn: str) -> AsyncIterator[Database]:
    async with postgres.database(dsn, size=2) as opened:
        yield opened


async def add(opened: Database, *keys: str, run: str = "r") -> None:
    async with opened.transaction() as connection:
        await outbox.add(connection, [event(key, run) for key in keys])


async def unpublished(opened: Database) -> int:
    async with opened.connection() as connection:
        return await connection.fetchval("SELECT count(*) FROM outbox WHERE sequence IS NULL")


async def all_published(opened: Database) -> None:
    async with asyncio.timeout(60):
        while await unpublished(opened):  # noqa: ASYNC110 - a table has no event
            await asyncio.sleep(0.02)


async def relayed_once(opened: Database, publisher: outbox.Publisher) -> int:
    async with opened.connection() as connection:
        return await outbox.relay_batch(connection, publisher.publish_events, OutboxSettings())


def milliseconds(value: int) -> timedelta:
    return timedelta(milliseconds=value)


class FakeStream:
    """A publisher with a stream in memory; `before` is awaited before anything is stored."""

    def __init__(self, before: outbox.Publish | None = None) -> None:
        self.steps: list[str] = []
        self.created_at, self.last, self.acknowledged = datetime.now(UTC), 0, 0
        self.reconnected: Callable[[], None] = lambda: None
        self._before = before

    async def publish_events(self, events: Sequence[CloudEvent]) -> list[int]:
        if self._before:
            await self._before(events)
        self.steps += [EntryRecorded.FromString(e.body).producer_step for e in events]
        self.last += len(events)
        return list(range(self.last - len(events) + 1, self.last + 1))

    async def stream_state(self, name: str) -> StreamState:
        assert name == "CACHE"
        return StreamState(self.created_at, self.last, self.acknowledged)

    def on_reconnect(self, callback: Callable[[], None]) -> None:
        self.reconnected = callback


async def test_what_is_rolled_back_is_never_published(dsn: str, opened: Database):
    stream = FakeStream()
    async with outbox.relaying(dsn, stream, "CACHE"):
        with pytest.raises(KeyError):  # noqa: PT012
            async with opened.transaction() as connection:
                await outbox.add(connection, [event("undone")])
                raise KeyError
        await add(opened, "done")
        await all_published(opened)
    assert stream.steps == ["done"]


async def test_a_commit_notifies_the_relay_at_once(dsn: str, opened: Database, until):
    settings = OutboxSettings(poll_interval=timedelta(minutes=10))
    stream = FakeStream()
    async with outbox.relaying(dsn, stream, "CACHE", settings=settings):
        await add(opened, "first")
        await until(lambda: stream.steps == ["first"])
        await all_published(opened)
        await asyncio.sleep(0.1)  # the relay has looked, and waits for a notice
        await add(opened, "second", "third")
        await until(lambda: stream.steps == ["first", "second", "third"])


async def test_a_failed_publish_keeps_the_events(dsn: str, opened: Database):
    settings = OutboxSettings(retry_delay=milliseconds(10))
    fails = 3

    async def fail(events: Sequence[CloudEvent]) -> None:
        nonlocal fails
        fails -= 1
        if fails >= 0:
            raise Unavailable("NATS is down")

    stream = FakeStream(fail)
    await add(opened, "a", "b")
    async with outbox.relaying(dsn, stream, "CACHE", settings=settings):
        await all_published(opened)
    assert stream.steps == ["a", "b"]


async def test_events_that_are_never_stored_do_not_hold_up_the_others(dsn: str, opened: Database):
    settings = OutboxSettings(batch=4, retry_delay=milliseconds(10))

    class Choosy(FakeStream):
        async def publish_events(self, events: Sequence[CloudEvent]) -> list[int]:
            good = [e for e in events if not EntryRecorded.FromString(e.body).producer_step.startswith("bad")]
            taken = await super().publish_events(good)
            if len(good) < len(events):
                raise bus.NotStored("too large", dict(zip(map(events.index, good), taken, strict=True)))
            return taken

    stream = Choosy()
    bad = [f"bad{i}" for i in range(10)]  # more than a batch
    await add(opened, *bad[:2], "0", *bad[2:], *map(str, range(1, 20)))
    async with outbox.relaying(dsn, stream, "CACHE", settings=settings), asyncio.timeout(60):
        while await unpublished(opened) > 10:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert sorted(stream.steps, key=int) == [str(i) for i in range(20)]


async def test_no_transaction_and_no_connection_is_held_while_nats_is_waited_for(dsn: str, opened: Database):
    waits, go = asyncio.Event(), asyncio.Event()

    async def hang(events: Sequence[CloudEvent]) -> None:
        waits.set()
        await go.wait()

    await add(opened, "a")
    async with outbox.relaying(dsn, FakeStream(hang), "CACHE"):
        await waits.wait()
        async with opened.connection(), opened.connection() as connection, asyncio.timeout(60):
            rows = await connection.fetch(
                """
                SELECT state FROM pg_stat_activity WHERE datname = current_database()
                AND pid <> pg_backend_pid() AND (state LIKE 'idle in%' OR backend_xmin IS NOT NULL)
                """
            )
        assert rows == []
        go.set()
        await all_published(opened)


async def test_of_two_relays_one_publishes_and_the_other_takes_over_from_it(dsn: str, opened: Database):
    settings = OutboxSettings(batch=7, retry_delay=milliseconds(20))

    async def slowly(events: Sequence[CloudEvent]) -> None:
        await asyncio.sleep(0.01)

    first, second = FakeStream(slowly), FakeStream()
    second.created_at = first.created_at
    relay = asyncio.create_task(_for_ever(outbox.relaying(dsn, first, "CACHE", settings=settings)))
    await add(opened, "0")
    await all_published(opened)
    async with outbox.relaying(dsn, second, "CACHE", settings=settings):
        for i in range(1, 60):
            await add(opened, str(i))
        await all_published(opened)
        assert (sorted(first.steps, key=int), second.steps) == ([str(i) for i in range(60)], [])
        second.last = first.last  # they publish to one stream
        relay.cancel()
        await asyncio.gather(relay, return_exceptions=True)
        await add(opened, "60")
        await all_published(opened)
    assert second.steps == ["60"]


async def _for_ever(block) -> None:
    async with block:
        await asyncio.Event().wait()


async def test_a_relay_that_can_not_publish_lets_another_do_it(dsn: str, opened: Database):
    settings = OutboxSettings(retry_delay=milliseconds(20))
    stream, tried = FakeStream(), asyncio.Event()

    async def fail(events: Sequence[CloudEvent]) -> None:
        tried.set()
        raise Unavailable("cut off")

    await add(opened, "a")
    async with outbox.relaying(dsn, FakeStream(fail), "CACHE", settings=settings):
        await tried.wait()
        async with outbox.relaying(dsn, stream, "CACHE", settings=settings):
            await all_published(opened)
    assert stream.steps == ["a"]


async def test_events_that_are_published_again_after_a_crash_are_stored_once(
    embedded: Servers, opened: Database, monkeypatch
):
    run = secrets.token_hex(6)
    await add(opened, "a", "b", run=run)

    class Crash(BaseException):
        pass

    async def crash(*_: object) -> None:
        raise Crash

    async with Broker(embedded.nats_url) as broker:
        with monkeypatch.context() as broken:
            broken.setattr(outbox, "_store_sequences", crash)
            with pytest.raises(Crash):
                await relayed_once(opened, broker)
        assert await unpublished(opened) == 2
        assert await relayed_once(opened, broker) == 2
        assert await unpublished(opened) == 0
        assert await stored(broker, run) == 2


async def stored(broker: Broker, run: str) -> int:
    """How many messages of a run are in the stream."""
    subject = f"{EntryRecorded.DESCRIPTOR.full_name}.p.{run}"
    info = await broker.connection.jetstream().stream_info("CACHE", subjects_filter=subject)
    return (info.state.subjects or {}).get(subject, 0)


async def test_the_relay_goes_on_after_its_connections_were_killed(dsn: str, opened: Database, until):
    stream = FakeStream()
    async with outbox.relaying(dsn, stream, "CACHE"):
        await add(opened, "a")
        await until(lambda: stream.steps == ["a"])
        await kill_all(dsn)
        async with asyncio.timeout(60):
            while True:
                try:
                    await add(opened, "b")
                    break
                except Unavailable:
                    await asyncio.sleep(0.02)
        await until(lambda: "b" in stream.steps)
        await all_published(opened)
    # Killed between publishing and noting, it publishes again: JetStream knows the id.
    assert list(dict.fromkeys(stream.steps)) == ["a", "b"]


async def kill_all(dsn: str) -> None:
    killer = await asyncpg.connect(dsn)
    try:
        await killer.execute(
            """
            SELECT pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE datname = current_database() AND pid <> pg_backend_pid()
            """
        )
    finally:
        await killer.close()


@asynccontextmanager
async def relayed(dsn: str, url: str) -> AsyncIterator[Broker]:
    broker = Broker(url, settings=BusSettings(publish_timeout=milliseconds(300)))
    settings = OutboxSettings(retry_delay=milliseconds(50))
    async with bus.consuming(broker), outbox.relaying(dsn, broker, "CACHE", settings=settings):
        yield broker


async def test_what_is_queued_while_nats_is_down_is_published_once_it_is_up(
    embedded: Servers, dsn: str, opened: Database, gates
):
    run = secrets.token_hex(6)
    gate, url = await gates(embedded.nats_url)
    await gate.shut()
    async with relayed(dsn, url) as broker:
        await add(opened, "before it was ever there", run=run)
        await asyncio.sleep(0.5)
        await gate.open()
        await all_published(opened)
        await gate.shut()
        await add(opened, *map(str, range(50)), run=run)
        await asyncio.sleep(0.5)
        assert await unpublished(opened) == 50
        await gate.open()
        await all_published(opened)
        assert await stored(broker, run) == 51


async def test_a_stream_that_was_lost_is_filled_with_what_not_all_consumers_acknowledged(
    dsn: str, opened: Database, until
):
    settings = OutboxSettings(poll_interval=milliseconds(500), min_retention=timedelta(0))
    stream = FakeStream()
    async with outbox.relaying(dsn, stream, "CACHE", settings=settings):
        await add(opened, *map(str, range(10)))
        await all_published(opened)
        stream.acknowledged = 4
        await only_left(opened, 6)
        stream.steps, stream.last, stream.acknowledged, stream.created_at = [], 0, 0, datetime.now(UTC)
        await until(lambda: stream.steps == ["4", "5", "6", "7", "8", "9"])
        await all_published(opened)
        stream.acknowledged = 6
        await only_left(opened, 0)


async def test_a_stream_that_lost_its_newest_events_gets_them_again_after_the_reconnect(
    dsn: str, opened: Database, until
):
    settings = OutboxSettings(poll_interval=timedelta(minutes=10))
    stream = FakeStream()
    async with outbox.relaying(dsn, stream, "CACHE", settings=settings):
        await add(opened, *map(str, range(10)))
        await all_published(opened)
        stream.steps, stream.last = [], 7
        stream.reconnected()
        await add(opened, "10")
        await until(lambda: stream.steps == ["7", "8", "9", "10"])


async def test_an_acknowledged_event_stays_for_its_minimum_retention(dsn: str, opened: Database):
    stream = FakeStream()
    await add(opened, "a")
    assert await relayed_once(opened, stream) == 1
    async with opened.connection() as connection:
        await outbox.reconcile(connection, StreamState(stream.created_at, 1, 1), OutboxSettings())
    await only_left(opened, 1)


async def only_left(opened: Database, count: int) -> None:
    """Wait until the outbox has `count` events, published or not."""
    async with asyncio.timeout(60), opened.connection() as connection:
        while await connection.fetchval("SELECT count(*) FROM outbox") != count:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
