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
from periplus_common.errors import Invalid, Unavailable
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
                bus.event(
                    EntryRecorded(project="p", run=run, step=str(i)), project="p", run=run, key=str(i), at=at
                )
                for i in range(COUNT)
            ]
        )
        kind = EntryRecorded.DESCRIPTOR.full_name
        yield link, pull.Consumer("CACHE", f"test-{run}", (f"{kind}.p.{run}",), batch=100)


def step(message: Msg) -> int:
    return int(EntryRecorded.FromString(message.data).step)


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
        if tries < 3 * bus.MAX_DELIVER:
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
