"""Events leave with their transaction, once or more often, whoever is away or dies in between."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import asyncpg
import pytest

from periplus.cache.v1.events_pb2 import EntryRecorded
from periplus_common import bus, outbox, postgres
from periplus_common.bus import Event
from periplus_common.errors import Unavailable
from periplus_common.postgres import Database
from periplus_local.stack.testing import Servers


def event(key: str, run: str = "r") -> Event:
    return bus.event(
        EntryRecorded(project="p", run=run, step=key), project="p", run=run, key=key, at=datetime.now(UTC)
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
        return await connection.fetchval("SELECT count(*) FROM outbox")


async def empty(opened: Database) -> None:
    async with asyncio.timeout(20):
        while await left(opened):  # noqa: ASYNC110 - a table has no event
            await asyncio.sleep(0.02)


class Heard:
    """A publish that remembers."""

    def __init__(self) -> None:
        self.steps: list[str] = []

    async def __call__(self, events: Sequence[Event]) -> None:
        self.steps += [EntryRecorded.FromString(e.body).step for e in events]


async def test_what_is_rolled_back_never_leaves(dsn: str, opened: Database):
    heard = Heard()
    async with outbox.relaying(opened, dsn, heard):
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
    async with outbox.relaying(opened, dsn, heard):
        await add(opened, "first")
        await until(lambda: heard.steps == ["first"])
        await empty(opened)
        await asyncio.sleep(0.1)  # the relay has looked, and waits for a notice
        await add(opened, "second", "third")
        await until(lambda: heard.steps == ["first", "second", "third"])


async def test_a_failed_publish_keeps_the_events(dsn: str, opened: Database, monkeypatch):
    monkeypatch.setattr(outbox, "PAUSE", 0.01)
    heard, fails = Heard(), 3

    async def publish(events: Sequence[Event]) -> None:
        nonlocal fails
        fails -= 1
        if fails >= 0:
            raise Unavailable("away")
        await heard(events)

    await add(opened, "a", "b")
    async with outbox.relaying(opened, dsn, publish):
        await empty(opened)
    assert heard.steps == ["a", "b"]


async def test_events_that_are_never_taken_do_not_keep_the_others(dsn: str, opened: Database, monkeypatch):
    monkeypatch.setattr(outbox, "BATCH", 4)
    monkeypatch.setattr(outbox, "PAUSE", 0.01)
    heard = Heard()

    async def publish(events: Sequence[Event]) -> None:
        steps = [EntryRecorded.FromString(e.body).step for e in events]
        bad = frozenset(i for i, step in enumerate(steps) if step.startswith("bad"))
        heard.steps += [step for i, step in enumerate(steps) if i not in bad]
        if bad:
            raise bus.Untaken("too large", bad)

    await add(opened, "bad1", "0", "bad2", *map(str, range(1, 20)))
    async with outbox.relaying(opened, dsn, publish), asyncio.timeout(20):
        while await left(opened) > 2:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert heard.steps == [str(i) for i in range(20)]


async def test_no_transaction_and_no_connection_is_held_while_nats_is_waited_for(dsn: str, opened: Database):
    waits, go = asyncio.Event(), asyncio.Event()

    async def publish(events: Sequence[Event]) -> None:
        waits.set()
        await go.wait()

    await add(opened, "a")
    async with outbox.relaying(opened, dsn, publish):
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
    first, second = Heard(), Heard()

    async def slowly(events: Sequence[Event]) -> None:
        await asyncio.sleep(0.01)
        await first(events)

    relay = asyncio.create_task(_for_ever(outbox.relaying(opened, dsn, slowly)))
    await add(opened, "0")
    await empty(opened)
    async with outbox.relaying(opened, dsn, second):
        for i in range(1, 60):
            await add(opened, str(i))
        await empty(opened)
        assert (sorted(first.steps, key=int), second.steps) == ([str(i) for i in range(60)], [])
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

    async def fail(events: Sequence[Event]) -> None:
        tried.set()
        raise Unavailable("cut off")

    await add(opened, "a")
    async with outbox.relaying(opened, dsn, fail):
        await tried.wait()
        async with outbox.relaying(opened, dsn, heard):
            await empty(opened)
    assert heard.steps == ["a"]


async def test_a_crash_between_publish_and_delete_repeats_what_jetstream_has_and_it_is_dropped(
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
            broken.setattr(outbox, "_delete", crash)
            with pytest.raises(Crash):
                await outbox.relay_batch(opened, link.publish)
        assert await left(opened) == 2
        assert await outbox.relay_batch(opened, link.publish) == 2
        assert await left(opened) == 0
        assert await stored(link, run) == 2


async def stored(link: bus.Link, run: str) -> int:
    """How many messages of a run are in the stream."""
    subject = f"{EntryRecorded.DESCRIPTOR.full_name}.p.{run}"
    info = await (await link.client()).jetstream().stream_info("CACHE", subjects_filter=subject)
    return (info.state.subjects or {}).get(subject, 0)


async def test_the_relay_survives_that_its_connections_are_killed(dsn: str, opened: Database, until):
    heard = Heard()
    async with outbox.relaying(opened, dsn, heard):
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
    # Killed between publishing and deleting, it publishes again: JetStream knows the id.
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
async def relayed(opened: Database, dsn: str, url: str) -> AsyncIterator[bus.Link]:
    async with bus.link(url) as link, outbox.relaying(opened, dsn, link.publish):
        yield link


async def test_what_is_queued_while_nats_is_away_leaves_when_it_is_back(
    embedded: Servers, dsn: str, opened: Database, gates, monkeypatch
):
    monkeypatch.setattr(bus, "PUBLISH_TIMEOUT", 0.3)
    monkeypatch.setattr(outbox, "PAUSE", 0.05)
    run = secrets.token_hex(6)
    gate, url = await gates(embedded.nats_url)
    await gate.shut()
    async with relayed(opened, dsn, url) as link:
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
