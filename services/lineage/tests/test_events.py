"""Events on real servers: repeated, in any order, unreadable, early, and by two replicas."""

import asyncio
import json
import random

import asyncpg
import grpc
import nats
import pytest
from client import opened
from nats.js.api import ConsumerConfig, DeliverPolicy
from scenario import everything
from story import Story, published
from test_fact import read

from periplus_common import bus
from periplus_lineage.settings import Settings

KIND = "periplus.dispatcher.v1.StepStarted"


async def pending(url: str) -> int:
    """How many events are not handled yet."""
    client = await nats.connect(url)
    try:
        infos = [
            await client.jetstream().consumer_info(publisher.upper(), f"lineage-{publisher}")
            for publisher in ("dispatcher", "cache", "snapshotter")
        ]
    finally:
        await client.close()
    return sum((info.num_pending or 0) + (info.num_ack_pending or 0) for info in infos)


async def handled(url: str) -> None:
    for _ in range(300):
        if await pending(url) == 0:
            return
        await asyncio.sleep(0.05)
    raise AssertionError("some events are not handled")


async def counts(dsn: str) -> list[int]:
    connection = await asyncpg.connect(dsn)
    try:
        return [
            await connection.fetchval(f"SELECT count(*) FROM {table}")
            for table in ("run", "step", "flow", "link", "template", "snapshot")
        ]
    finally:
        await connection.close()


async def test_repeated_events_in_any_order_at_two_replicas_make_each_row_once(settings: Settings) -> None:
    dsn, url = settings.postgres_dsn.get_secret_value(), settings.nats_url.get_secret_value()
    events = [(event, copy) for event in everything() for copy in "1234"]
    random.Random(7).shuffle(events)
    async with opened(settings) as client, opened(settings) as other:
        await client.link.publish([published(event, client.salt + copy) for event, copy in events])
        await handled(url)
        first, second = await client.run("r1"), await other.run("r1")
    assert first == second
    facts = read(*everything())
    tables = (facts.runs, facts.steps, facts.flows, facts.links, facts.templates, facts.snapshots)
    assert await counts(dsn) == [len(table) for table in tables]


async def test_a_watch_at_one_replica_hears_what_another_one_stored(settings: Settings) -> None:
    async with opened(settings) as writer:
        # This one reads no events: its streams are nowhere.
        deaf = settings.model_copy(update={"nats_url": settings.nats_url.__class__("nats://127.0.0.1:9")})
        async with opened(deaf, writer.link) as reader:
            watch = reader.watch("far")
            await writer.tell(Story("far").chain("a").events)
            async with asyncio.timeout(4):  # before anybody would look without being told
                phases = {step.path: step.phase async for news in watch for step in news.steps}
    assert phases == {"a": 3}


async def test_an_unreadable_event_goes_to_the_dead_letters_and_holds_up_nobody(settings: Settings) -> None:
    url = settings.nats_url.get_secret_value()
    bad = [
        bus.CloudEvent(f"{KIND}.default.bad", {"Nats-Msg-Id": f"bad-{i}"}, b"\xff\xff" + bytes([i]))
        for i in range(20)
    ]
    good = [published(event, "good") for event in Story("good").chain("a", "b", "c").events]
    mixed = [event for pair in zip(bad, [*good, *good, *good], strict=False) for event in pair]
    async with opened(settings) as client:
        await client.link.publish(mixed)
        run = await client.run_when("good", lambda r: r.finished_at.seconds and r.step_count == 3)
        await handled(url)
        connection = await client.link.client()
        dead = await connection.jetstream().subscribe(
            "periplus-dead.>", config=ConsumerConfig(deliver_policy=DeliverPolicy.ALL)
        )
        letters = [await dead.next_msg(timeout=10) for _ in bad]
    assert sorted(letter.data for letter in letters) == sorted(event.body for event in bad)
    assert json.loads(letters[0].headers["periplus-reason"]) == f"Invalid: not a {KIND}"
    assert {step.phase for step in run.steps} == {3}


async def test_questions_are_answered_while_nats_is_away(settings: Settings) -> None:
    away = settings.model_copy(update={"nats_url": settings.nats_url.__class__("nats://127.0.0.1:9")})
    async with bus.link(settings.nats_url.get_secret_value()) as link, opened(away, link) as client:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await client.run("nobody")
    assert refused.value.code() == grpc.StatusCode.NOT_FOUND


async def test_events_that_were_published_before_the_service_was_up_are_read(settings: Settings) -> None:
    async with bus.link(settings.nats_url.get_secret_value()) as link:
        await link.publish([published(event, "before") for event in Story("before").chain("a").events])
    async with opened(settings) as client:
        await client.run_when("before", lambda r: r.finished_at.seconds)


async def test_a_watch_outlives_its_notices(settings: Settings) -> None:
    dsn = settings.postgres_dsn.get_secret_value()
    events = Story("cut").chain("a").events
    async with opened(settings) as client:
        watch = client.watch("cut")
        await client.tell(events[:1])
        told = aiter(watch)
        await anext(told)
        connection = await asyncpg.connect(dsn)
        killed = await connection.fetchval(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid() AND query = 'SELECT'"
        )
        await connection.close()
        assert killed == 1
        await client.tell(events[1:])
        phases = {step.path: step.phase async for news in told for step in news.steps}
    assert phases == {"a": 3}
