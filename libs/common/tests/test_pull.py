"""The batched path on a real JetStream: what is refused is buried by itself, and what waits is never given up."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest
from nats.aio.msg import Msg
from nats.js.api import ConsumerConfig, DeliverPolicy

from periplus.cache.v1.events_pb2 import EntryRecorded
from periplus_common import bus, pull
from periplus_common.bus import legacy
from periplus_common.errors import Invalid, NotFound, Unavailable
from periplus_local.stack.testing import Servers, embedded

__all__ = ["embedded"]

COUNT = 300


@asynccontextmanager
async def published(url: str) -> AsyncIterator[tuple[bus.Link, pull.Consumer]]:
    """Events of a run, and a consumer of them alone."""
    run = secrets.token_hex(8)
    at = datetime.now(UTC)
    async with bus.link(url) as link:
        await link.publish(
            [
                bus.cloud_event(
                    EntryRecorded(project="p", producer_run=run, producer_step=str(i)),
                    project="p",
                    run=run,
                    key=str(i),
                    at=at,
                )
                for i in range(COUNT)
            ]
        )
        kind = EntryRecorded.DESCRIPTOR.full_name
        yield link, pull.Consumer("CACHE", f"test-{run}", (f"{kind}.p.{run}",), batch=100)


def step(message: Msg) -> int:
    return int(EntryRecorded.FromString(message.data).producer_step)


async def until(condition) -> None:
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come")


async def pending(link: bus.Link, consumer: pull.Consumer) -> int:
    client = await link.client()
    info = await client.jetstream().consumer_info("CACHE", consumer.name)
    return (info.num_pending or 0) + (info.num_ack_pending or 0)


async def test_a_refused_message_is_buried_and_the_rest_of_its_batch_is_handled_once(
    embedded: Servers,
) -> None:
    handled: list[int] = []

    async def handle(batch: list[Msg]) -> pull.Refusals:
        bad = [message for message in batch if step(message) % 10 == 0]
        handled.extend(step(message) for message in batch if message not in bad)
        return [(message, Invalid("not wanted")) for message in bad]

    async with published(embedded.nats_url) as (link, consumer), pull.consuming(link, consumer, handle):
        await until(lambda: len(handled) == COUNT * 9 // 10)
        client = await link.client()
        dead = await client.jetstream().subscribe(
            f"periplus-dead.{consumer.name}", config=ConsumerConfig(deliver_policy=DeliverPolicy.ALL)
        )
        letters = [await dead.next_msg(timeout=10) for _ in range(COUNT // 10)]
        for _ in range(100):
            if await pending(link, consumer) == 0:
                break
            await asyncio.sleep(0.05)
        else:
            raise AssertionError("some messages are neither acknowledged nor given up")
    assert sorted(handled) == [i for i in range(COUNT) if i % 10]
    assert sorted(map(step, letters)) == [i for i in range(COUNT) if i % 10 == 0]
    assert json.loads(letters[0].headers["periplus-reason"]) == "Invalid: not wanted"


async def test_messages_wait_for_what_is_away_however_often_it_is_tried(
    embedded: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pull, "PAUSE", 0.01)
    tries = 0
    handled: list[int] = []

    async def handle(batch: list[Msg]) -> None:
        nonlocal tries
        tries += 1
        if tries < 3 * legacy.MAX_DELIVER:
            raise Unavailable("away")
        assert all(message.metadata.num_delivered == 1 for message in batch)
        handled.extend(map(step, batch))

    async with (
        published(embedded.nats_url) as (link, consumer),
        pull.consuming(link, consumer, handle),
    ):
        await until(lambda: len(handled) == COUNT)
    assert sorted(handled) == list(range(COUNT))


async def test_a_batch_that_fails_as_a_whole_is_tried_one_by_one(embedded: Servers) -> None:
    handled: list[int] = []

    async def handle(batch: list[Msg]) -> None:
        if any(step(message) == 7 for message in batch):
            raise Invalid("there is a seven")
        handled.extend(map(step, batch))

    async with (
        published(embedded.nats_url) as (link, consumer),
        pull.consuming(link, consumer, handle),
    ):
        await until(lambda: len(handled) == COUNT - 1)
    assert sorted(handled) == [i for i in range(COUNT) if i != 7]


async def test_it_goes_on_where_it_was_after_the_server_was_away(embedded: Servers, gates) -> None:
    gate, url = await gates(embedded.nats_url)
    handled: set[int] = set()

    async def handle(batch: list[Msg]) -> None:
        if len(handled) == 0:
            await gate.shut()
        handled.update(map(step, batch))

    async with (
        published(embedded.nats_url) as (_, consumer),
        bus.link(url) as link,
        pull.consuming(link, consumer, handle),
    ):
        await until(lambda: len(handled) > 0)
        await asyncio.sleep(0.2)
        await gate.open()
        await until(lambda: len(handled) == COUNT)


async def test_a_consumer_that_the_server_lost_is_made_anew(embedded: Servers) -> None:
    handled: list[int] = []

    async def handle(batch: list[Msg]) -> None:
        handled.extend(map(step, batch))

    async with (
        published(embedded.nats_url) as (link, consumer),
        pull.consuming(link, consumer, handle),
    ):
        await until(lambda: len(handled) == COUNT)
        await asyncio.sleep(0.1)
        await (await link.client()).jetstream().delete_consumer("CACHE", consumer.name)
        # It knows nothing of what was handled: everything comes again.
        await until(lambda: len(handled) == 2 * COUNT)


async def test_what_a_consumer_held_when_it_ended_comes_again(
    embedded: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(legacy, "ACK_WAIT", 0.3)
    held = asyncio.Event()

    async def hold(batch: list[Msg]) -> None:
        held.set()
        await asyncio.Event().wait()

    seen: dict[int, int] = {}

    async def handle(batch: list[Msg]) -> None:
        seen.update((step(message), message.metadata.num_delivered) for message in batch)

    async with published(embedded.nats_url) as (link, consumer):
        async with pull.consuming(link, consumer, hold):
            await held.wait()
        async with pull.consuming(link, consumer, handle):
            await until(lambda: len(seen) == COUNT)
    assert max(seen.values()) > 1


async def test_messages_that_wait_or_are_worked_on_are_not_sent_again(
    embedded: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(legacy, "ACK_WAIT", 1.2)
    started: list[int] = []

    async def handle(batch: list[Msg]) -> None:
        started.extend(map(step, batch))
        await asyncio.sleep(3)  # far longer than the server would wait

    async with published(embedded.nats_url) as (link, consumer), pull.consuming(link, consumer, handle):
        await until(lambda: len(started) >= COUNT)  # two batches are worked on, the third waits for them
        await asyncio.sleep(1.5)
    assert sorted(started) == list(range(COUNT))


async def test_one_that_comes_too_early_comes_again_soon(
    embedded: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(legacy, "RETRY_DELAY", 600)
    monkeypatch.setattr(legacy, "EARLY_DELAY", 0.05)
    tries = 0

    async def handle(batch: list[Msg]) -> pull.Refusals:
        nonlocal tries
        early = [message for message in batch if step(message) == 0]
        tries += len(early)
        return [(message, NotFound("not yet")) for message in early if tries < 3]

    async with published(embedded.nats_url) as (link, consumer), pull.consuming(link, consumer, handle):
        await until(lambda: tries >= 3)


async def test_poison_does_not_block(embedded: Servers) -> None:
    """Every batch has some, and those around them are handled."""
    handled: set[int] = set()

    async def handle(batch: list[Msg]) -> None:
        if any(step(message) % 25 == 0 for message in batch):
            raise Invalid("poison")
        handled.update(map(step, batch))

    async with (
        published(embedded.nats_url) as (link, consumer),
        pull.consuming(link, consumer, handle),
    ):
        await until(lambda: len(handled) == COUNT - 12)
        for _ in range(200):
            if await pending(link, consumer) == 0:
                break
            await asyncio.sleep(0.05)
        else:
            raise AssertionError("some messages are neither acknowledged nor given up")
    assert handled == {i for i in range(COUNT) if i % 25}
