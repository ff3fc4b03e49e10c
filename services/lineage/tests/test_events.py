"""Events on real servers: repeated, in any order, undecodable, early, and with two replicas."""

import asyncio
import json
import random

import asyncpg
import grpc
import nats
import pytest
from example_runs import all_events
from lineage_client import running
from nats.js.api import ConsumerConfig, DeliverPolicy
from run_events import RunEvents, cloud_event
from test_projection import delta_of

from periplus_common.bus import Broker, CloudEvent
from periplus_lineage.settings import Settings

EVENT_TYPE = "periplus.dispatcher.v1.StepStarted"


async def pending_events(url: str) -> int:
    """How many events are not acknowledged yet."""
    client = await nats.connect(url)
    try:
        infos = [
            await client.jetstream().consumer_info(publisher.upper(), f"lineage-{publisher}")
            for publisher in ("dispatcher", "cache", "snapshotter")
        ]
    finally:
        await client.close()
    return sum((info.num_pending or 0) + (info.num_ack_pending or 0) for info in infos)


async def wait_until_acknowledged(url: str) -> None:
    for _ in range(1200):
        if await pending_events(url) == 0:
            return
        await asyncio.sleep(0.05)
    raise AssertionError("some events were not acknowledged")


async def row_counts(dsn: str) -> list[int]:
    connection = await asyncpg.connect(dsn)
    try:
        return [
            await connection.fetchval(f"SELECT count(*) FROM {table}")
            for table in ("run", "step", "artifact_usage", "step_dependency", "template", "snapshot")
        ]
    finally:
        await connection.close()


async def test_repeated_events_in_any_order_at_two_replicas_give_each_row_once(settings: Settings) -> None:
    dsn, url = settings.postgres_dsn.get_secret_value(), settings.nats_url.get_secret_value()
    events = [(event, copy) for event in all_events() for copy in "1234"]
    random.Random(7).shuffle(events)
    async with running(settings) as client, running(settings) as other:
        await client.broker.publish_events([cloud_event(event, client.salt + copy) for event, copy in events])
        await wait_until_acknowledged(url)
        first, second = await client.get_run("r1"), await other.get_run("r1")
    assert first == second
    delta = delta_of(*all_events())
    tables = (
        delta.runs, delta.steps, delta.usages, delta.dependencies, delta.templates, delta.snapshots
    )  # fmt: skip
    assert await row_counts(dsn) == [len(table) for table in tables]


async def test_a_watch_at_one_replica_is_notified_of_what_another_one_stored(settings: Settings) -> None:
    async with running(settings) as writer:
        # This one receives no events, as nothing listens at its NATS URL.
        other = settings.model_copy(update={"nats_url": settings.nats_url.__class__("nats://127.0.0.1:9")})
        async with running(other, writer.broker) as reader:
            watch = reader.watch("far")
            await writer.publish(RunEvents("far").chain("a").events)
            async with asyncio.timeout(
                4
            ):  # less than the interval after which it queries without a notification
                phases = {step.path: step.phase async for update in watch for step in update.steps}
    assert phases == {"a": 3}


async def test_an_undecodable_event_becomes_a_dead_letter_and_delays_no_other(settings: Settings) -> None:
    url = settings.nats_url.get_secret_value()
    bad = [
        CloudEvent(
            f"{EVENT_TYPE}.default.bad",
            {"Nats-Msg-Id": f"bad-{i}", "ce-type": EVENT_TYPE},
            b"\xff\xff" + bytes([i]),
        )
        for i in range(20)
    ]
    good = [cloud_event(event, "good") for event in RunEvents("good").chain("a", "b", "c").events]
    mixed = [event for pair in zip(bad, [*good, *good, *good], strict=False) for event in pair]
    async with running(settings) as client:
        await client.broker.publish_events(mixed)
        run = await client.wait_for_run("good", lambda r: r.finished_at.seconds and r.step_count == 3)
        await wait_until_acknowledged(url)
        dead = await client.broker.connection.jetstream().subscribe(
            "periplus-dead.>", config=ConsumerConfig(deliver_policy=DeliverPolicy.ALL)
        )
        letters = [await dead.next_msg(timeout=60) for _ in bad]
    assert sorted(letter.data for letter in letters) == sorted(event.body for event in bad)
    assert json.loads(letters[0].headers["periplus-reason"]) == f"Invalid: the body is not a {EVENT_TYPE}"
    assert {step.phase for step in run.steps} == {3}


async def test_queries_are_answered_while_nats_can_not_be_reached(settings: Settings) -> None:
    unreachable = settings.model_copy(update={"nats_url": settings.nats_url.__class__("nats://127.0.0.1:9")})
    async with (
        Broker(settings.nats_url.get_secret_value()) as broker,
        running(unreachable, broker) as client,
    ):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await client.get_run("unknown")
    assert refused.value.code() == grpc.StatusCode.NOT_FOUND


async def test_events_that_were_published_before_the_service_started_are_stored(settings: Settings) -> None:
    async with Broker(settings.nats_url.get_secret_value()) as broker:
        await broker.publish_events(
            [cloud_event(event, "before") for event in RunEvents("before").chain("a").events]
        )
    async with running(settings) as client:
        await client.wait_for_run("before", lambda r: r.finished_at.seconds)


async def test_a_watch_goes_on_after_its_notification_connection_was_lost(settings: Settings) -> None:
    dsn = settings.postgres_dsn.get_secret_value()
    events = RunEvents("cut").chain("a").events
    async with running(settings) as client:
        watch = client.watch("cut")
        await client.publish(events[:1])
        updates = aiter(watch)
        await anext(updates)
        connection = await asyncpg.connect(dsn)
        killed = await connection.fetchval(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid() AND query = 'SELECT'"
        )
        await connection.close()
        assert killed == 1
        await client.publish(events[1:])
        phases = {step.path: step.phase async for update in updates for step in update.steps}
    assert phases == {"a": 3}
