"""Events leave with their transaction, once or more often, whoever is away or dies in between."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from periplus.cache.v1.events_pb2 import EntryRecorded
from periplus_common import bus, outbox, postgres
from periplus_common.bus import CloudEvent, StreamState, legacy
from periplus_common.errors import Unavailable
from periplus_common.postgres import Database
from periplus_local.stack.nats import declare_streams
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


async def left(opened: Database) -> int:
    async with opened.connection() as connection:
        return await connection.fetchval("SELECT count(*) FROM outbox WHERE sequence IS NULL")


async def empty(opened: Database) -> None:
    async with asyncio.timeout(20):
        while await left(opened):  # noqa: ASYNC110 - a table has no event
            await asyncio.sleep(0.02)


async def relayed_once(opened: Database, link: outbox.Publisher) -> int:
    async with opened.connection() as connection:
        return await outbox.relay_batch(connection, link.publish_events)


class Heard:
    """A stream that remembers; what is published passes `before` first."""

    def __init__(self, before: outbox.Publish | None = None) -> None:
        self.steps: list[str] = []
        self.created, self.last, self.handled = datetime.now(UTC), 0, 0
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
        return StreamState(self.created, self.last, self.handled)

    def on_reconnect(self, call: Callable[[], None]) -> None:
        self.reconnected = call


async def test_what_is_rolled_back_never_leaves(dsn: str, opened: Database):
    heard = Heard()
    async with outbox.relaying(dsn, heard, "CACHE"):
        with pytest.raises(KeyError):  # noqa: PT012
            async with opened.transaction() as connection:
                await outbox.add(connection, [event("undone")])
                raise KeyError
        await add(opened, "done")
        await empty(opened)
    assert heard.steps == ["done"]


async def test_a_commit_wakes_the_relay_at_once(dsn: str, opened: Database, monkeypatch, until):
    monkeypatch.setattr(outbox, "PATIENCE", 600)
    heard = Heard()
    async with outbox.relaying(dsn, heard, "CACHE"):
        await add(opened, "first")
        await until(lambda: heard.steps == ["first"])
        await empty(opened)
        await asyncio.sleep(0.1)  # the relay has looked, and waits for a notice
        await add(opened, "second", "third")
        await until(lambda: heard.steps == ["first", "second", "third"])


async def test_a_failed_publish_keeps_the_events(dsn: str, opened: Database, monkeypatch):
    monkeypatch.setattr(outbox, "PAUSE", 0.01)
    fails = 3

    async def fail(events: Sequence[CloudEvent]) -> None:
        nonlocal fails
        fails -= 1
        if fails >= 0:
            raise Unavailable("away")

    heard = Heard(fail)
    await add(opened, "a", "b")
    async with outbox.relaying(dsn, heard, "CACHE"):
        await empty(opened)
    assert heard.steps == ["a", "b"]


async def test_events_that_are_never_taken_do_not_keep_the_others(dsn: str, opened: Database, monkeypatch):
    monkeypatch.setattr(outbox, "BATCH", 4)
    monkeypatch.setattr(outbox, "PAUSE", 0.01)

    class Choosy(Heard):
        async def publish_events(self, events: Sequence[CloudEvent]) -> list[int]:
            good = [e for e in events if not EntryRecorded.FromString(e.body).producer_step.startswith("bad")]
            taken = await super().publish_events(good)
            if len(good) < len(events):
                raise bus.NotStored("too large", dict(zip(map(events.index, good), taken, strict=True)))
            return taken

    heard = Choosy()
    bad = [f"bad{i}" for i in range(10)]  # more than a batch
    await add(opened, *bad[:2], "0", *bad[2:], *map(str, range(1, 20)))
    async with outbox.relaying(dsn, heard, "CACHE"), asyncio.timeout(20):
        while await left(opened) > 10:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert sorted(heard.steps, key=int) == [str(i) for i in range(20)]


async def test_no_transaction_and_no_connection_is_held_while_nats_is_waited_for(dsn: str, opened: Database):
    waits, go = asyncio.Event(), asyncio.Event()

    async def hang(events: Sequence[CloudEvent]) -> None:
        waits.set()
        await go.wait()

    await add(opened, "a")
    async with outbox.relaying(dsn, Heard(hang), "CACHE"):
        await waits.wait()
        async with opened.connection(), opened.connection() as connection, asyncio.timeout(10):
            rows = await connection.fetch(
                """
                SELECT state FROM pg_stat_activity WHERE datname = current_database()
                AND pid <> pg_backend_pid() AND (state LIKE 'idle in%' OR backend_xmin IS NOT NULL)
                """
            )
        assert rows == []
        go.set()
        await empty(opened)


async def test_two_relays_do_not_double_and_one_takes_over_from_the_other(
    dsn: str, opened: Database, monkeypatch
):
    monkeypatch.setattr(outbox, "PAUSE", 0.02)
    monkeypatch.setattr(outbox, "BATCH", 7)

    async def slowly(events: Sequence[CloudEvent]) -> None:
        await asyncio.sleep(0.01)

    first, second = Heard(slowly), Heard()
    second.created = first.created
    relay = asyncio.create_task(_for_ever(outbox.relaying(dsn, first, "CACHE")))
    await add(opened, "0")
    await empty(opened)
    async with outbox.relaying(dsn, second, "CACHE"):
        for i in range(1, 60):
            await add(opened, str(i))
        await empty(opened)
        assert (sorted(first.steps, key=int), second.steps) == ([str(i) for i in range(60)], [])
        second.last = first.last  # they publish to one stream
        relay.cancel()
        await asyncio.gather(relay, return_exceptions=True)
        await add(opened, "60")
        await empty(opened)
    assert second.steps == ["60"]


async def _for_ever(block) -> None:
    async with block:
        await asyncio.Event().wait()


async def test_a_relay_that_can_not_publish_lets_another_do_it(dsn: str, opened: Database, monkeypatch):
    monkeypatch.setattr(outbox, "PAUSE", 0.02)
    heard, tried = Heard(), asyncio.Event()

    async def fail(events: Sequence[CloudEvent]) -> None:
        tried.set()
        raise Unavailable("cut off")

    await add(opened, "a")
    async with outbox.relaying(dsn, Heard(fail), "CACHE"):
        await tried.wait()
        async with outbox.relaying(dsn, heard, "CACHE"):
            await empty(opened)
    assert heard.steps == ["a"]


async def test_a_crash_between_publishing_and_noting_repeats_what_jetstream_has_and_it_is_dropped(
    embedded: Servers, opened: Database, monkeypatch
):
    run = secrets.token_hex(6)
    await add(opened, "a", "b", run=run)

    class Crash(BaseException):
        pass

    async def crash(*_: object) -> None:
        raise Crash

    async with bus.link(embedded.nats_url) as link:
        with monkeypatch.context() as broken:
            broken.setattr(outbox, "_note", crash)
            with pytest.raises(Crash):
                await relayed_once(opened, link)
        assert await left(opened) == 2
        assert await relayed_once(opened, link) == 2
        assert await left(opened) == 0
        assert await stored(link, run) == 2


async def stored(link: bus.Link, run: str) -> int:
    """How many messages of a run are in the stream."""
    subject = f"{EntryRecorded.DESCRIPTOR.full_name}.p.{run}"
    info = await (await link.client()).jetstream().stream_info("CACHE", subjects_filter=subject)
    return (info.state.subjects or {}).get(subject, 0)


async def test_the_relay_survives_that_its_connections_are_killed(dsn: str, opened: Database, until):
    heard = Heard()
    async with outbox.relaying(dsn, heard, "CACHE"):
        await add(opened, "a")
        await until(lambda: heard.steps == ["a"])
        await kill_all(dsn)
        async with asyncio.timeout(20):
            while True:
                try:
                    await add(opened, "b")
                    break
                except Unavailable:
                    await asyncio.sleep(0.02)
        await until(lambda: "b" in heard.steps)
        await empty(opened)
    # Killed between publishing and noting, it publishes again: JetStream knows the id.
    assert list(dict.fromkeys(heard.steps)) == ["a", "b"]


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
async def relayed(dsn: str, url: str) -> AsyncIterator[bus.Link]:
    async with bus.link(url) as link, outbox.relaying(dsn, link, "CACHE"):
        yield link


async def test_what_is_queued_while_nats_is_away_leaves_when_it_is_back(
    embedded: Servers, dsn: str, opened: Database, gates, monkeypatch
):
    monkeypatch.setattr(legacy, "PUBLISH_TIMEOUT", 0.3)
    monkeypatch.setattr(outbox, "PAUSE", 0.05)
    run = secrets.token_hex(6)
    gate, url = await gates(embedded.nats_url)
    await gate.shut()
    async with relayed(dsn, url) as link:
        await add(opened, "before it was ever there", run=run)
        await asyncio.sleep(0.5)
        await gate.open()
        await empty(opened)
        await gate.shut()
        await add(opened, *map(str, range(50)), run=run)
        await asyncio.sleep(0.5)
        assert await left(opened) == 50
        await gate.open()
        await empty(opened)
        assert await stored(link, run) == 51


async def test_a_stream_that_was_lost_gets_again_what_not_all_have_handled_for_long(
    dsn: str, opened: Database, monkeypatch, until
):
    monkeypatch.setattr(outbox, "PATIENCE", 0.5)
    monkeypatch.setattr(outbox, "KEPT", timedelta(0))
    heard = Heard()
    async with outbox.relaying(dsn, heard, "CACHE"):
        await add(opened, *map(str, range(10)))
        await empty(opened)
        heard.handled = 4
        await kept(opened, 6)
        heard.steps, heard.last, heard.handled, heard.created = [], 0, 0, datetime.now(UTC)
        await until(lambda: heard.steps == ["4", "5", "6", "7", "8", "9"])
        await empty(opened)
        heard.handled = 6
        await kept(opened, 0)


async def test_a_stream_that_lost_its_newest_gets_these_again_once_it_is_back(
    dsn: str, opened: Database, monkeypatch, until
):
    monkeypatch.setattr(outbox, "PATIENCE", 600)
    heard = Heard()
    async with outbox.relaying(dsn, heard, "CACHE"):
        await add(opened, *map(str, range(10)))
        await empty(opened)
        heard.steps, heard.last = [], 7
        heard.reconnected()
        await add(opened, "10")
        await until(lambda: heard.steps == ["7", "8", "9", "10"])


async def test_what_has_just_been_handled_stays_a_while(dsn: str, opened: Database):
    heard = Heard()
    await add(opened, "a")
    assert await relayed_once(opened, heard) == 1
    async with opened.connection() as connection:
        await outbox.reconcile(connection, StreamState(heard.created, 1, 1))
    await kept(opened, 1)


async def kept(opened: Database, count: int) -> None:
    """Wait until so many events are left, published or not."""
    async with asyncio.timeout(20), opened.connection() as connection:
        while await connection.fetchval("SELECT count(*) FROM outbox") != count:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def test_a_stream_is_seen_as_its_slowest_consumer_has_handled_it(embedded: Servers):
    async with bus.link(embedded.nats_url) as link:
        jetstream = (await link.client()).jetstream()
        await jetstream.delete_stream("SNAPSHOTTER")  # with what other tests have told
        await declare_streams(embedded.nats_url)
        empty_ = await link.stream_state("SNAPSHOTTER")
        assert (empty_.last_sequence, empty_.acknowledged_sequence) == (0, 0)
        told = [CloudEvent(f"periplus.snapshotter.v1.X.p.{i}", {}, b"") for i in range(3)]
        assert await link.publish_events(told) == [1, 2, 3]
        for name, handled in (("quick", 3), ("slow", 1)):
            subscription = await jetstream.pull_subscribe("periplus.snapshotter.>", durable=name)
            for message in await subscription.fetch(handled):
                await message.ack_sync()
        seen = await link.stream_state("SNAPSHOTTER")
        assert seen == StreamState(empty_.created_at, 3, 1)
        await jetstream.delete_stream("SNAPSHOTTER")
        with pytest.raises(Unavailable, match="SNAPSHOTTER does not answer"):
            await link.stream_state("SNAPSHOTTER")
        await declare_streams(embedded.nats_url)
        assert (await link.stream_state("SNAPSHOTTER")).created_at > empty_.created_at
