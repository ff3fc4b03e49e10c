"""What a broker promises of its connection and of publishing, on a real JetStream."""

import asyncio
import gc
import secrets
from datetime import UTC, datetime, timedelta

import pytest
from nats.js.errors import NotFoundError

from periplus.cache.v1.events_pb2 import EntryRecorded
from periplus_common import bus
from periplus_common.bus import Broker, BusSettings, StreamState
from periplus_common.errors import Unavailable
from periplus_common.streams import declare_streams
from periplus_local.stack.testing import Servers

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def event(run: str, key: str = "k") -> bus.CloudEvent:
    return bus.cloud_event(EntryRecorded(project="p", producer_run=run), project="p", run=run, key=key, at=AT)


def publish_within(seconds: float) -> BusSettings:
    return BusSettings(publish_timeout=timedelta(seconds=seconds))


async def stored(broker: Broker, subject: str) -> dict[str, int]:
    info = await broker.connection.jetstream().stream_info("CACHE", subjects_filter=subject)
    return info.state.subjects or {}


async def test_an_event_that_is_published_twice_is_stored_once(embedded: Servers):
    one = event(secrets.token_hex(6))
    async with Broker(embedded.nats_url) as broker:
        await broker.publish_events([one, one])
        await broker.publish_events([one])
        assert await broker.publish_events([]) == []
        assert await stored(broker, one.subject) == {one.subject: 1}


async def test_an_event_is_stored_with_its_headers_and_body(embedded: Servers):
    one = event(secrets.token_hex(6))
    async with Broker(embedded.nats_url) as broker:
        (sequence,) = await broker.publish_events([one])
        found = await broker.connection.jetstream().get_msg("CACHE", sequence)
    assert found.data == one.body
    assert found.headers == one.headers  # and no more: each one costs its consumers time


async def test_an_event_of_a_trace_gets_the_header_by_which_its_consumers_find_the_trace(embedded: Servers):
    one = event(secrets.token_hex(6))
    traced = {**one.headers, "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}
    async with Broker(embedded.nats_url) as broker:
        (sequence,) = await broker.publish_events([bus.CloudEvent(one.subject, traced, one.body)])
        found = await broker.connection.jetstream().get_msg("CACHE", sequence)
    assert found.headers == traced | {"correlation_id": one.headers["ce-id"]}


async def test_those_events_are_named_that_were_not_stored(embedded: Servers):
    run = secrets.token_hex(6)
    events = [event(run, str(i)) for i in range(5)]
    events[1] = bus.CloudEvent("periplus.unknown.v1.X.p.r", events[1].headers, b"")
    events[3] = bus.CloudEvent(events[3].subject, events[3].headers, bytes((1 << 20) + 1))
    async with Broker(embedded.nats_url, settings=publish_within(1)) as broker:
        with pytest.raises(bus.NotStored, match="2 of 5 events, the first") as caught:
            await broker.publish_events(events)
        assert sorted(caught.value.stored) == [0, 2, 4]
        assert await stored(broker, events[0].subject) == {events[0].subject: 3}


async def test_a_publish_that_nats_does_not_permit_is_explained(embedded: Servers):
    url = embedded.service_nats_urls["lineage"]
    async with Broker(url, settings=publish_within(0.5)) as broker:
        with pytest.raises(bus.NotStored, match=r"(?i)permissions violation for publish"):
            await broker.publish_events([event("r")])


async def test_a_server_that_was_never_there_is_unavailable_and_used_once_it_is_there(
    embedded: Servers, gates
):
    gate, url = await gates(embedded.nats_url)
    await gate.shut()
    one = event(secrets.token_hex(6))
    broker = Broker(url, settings=publish_within(0.2))
    async with bus.consuming(broker):
        with pytest.raises(Unavailable, match=r"NATS at 127\.0\.0\.1:\d+ is unavailable"):
            await broker.publish_events([one])
        with pytest.raises(Unavailable, match=r"NATS at 127\.0\.0\.1:\d+ is unavailable"):
            await broker.stream_state("CACHE")
        await gate.open()
        async with asyncio.timeout(60):
            while True:
                try:
                    await broker.publish_events([one])
                    break
                except Unavailable:
                    await asyncio.sleep(0.05)


async def test_a_publish_that_is_cancelled_leaves_the_connection_usable(embedded: Servers, gates):
    gate, url = await gates(embedded.nats_url)
    one = event(secrets.token_hex(6))
    async with Broker(url) as broker:
        await gate.shut()
        publishing = asyncio.create_task(broker.publish_events([one]))
        await asyncio.sleep(0.1)
        publishing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await publishing
        await gate.open()
        async with asyncio.timeout(60):
            while True:
                try:
                    return await broker.publish_events([one])
                except Unavailable:
                    continue


async def test_a_connection_that_the_server_closes_for_good_ends_the_block(embedded: Servers, gates, until):
    gate, url = await gates(embedded.nats_url)
    with pytest.RaisesGroup(pytest.RaisesExc(Unavailable, match="for good"), flatten_subgroups=True):
        async with asyncio.timeout(60):
            broker = Broker(url)
            async with bus.consuming(broker):
                await until(lambda: broker.running)
                gate.say(b"-ERR 'no more of you'\r\n")
                await asyncio.Event().wait()


async def test_a_password_that_is_refused_while_reconnecting_ends_the_block(embedded: Servers, gates, until):
    """FastStream's callback raises inside nats-py's reconnecting, which then stops silently."""
    gate, url = await gates(embedded.nats_url)

    async def consume() -> None:
        broker = Broker(url)
        async with asyncio.timeout(60), bus.consuming(broker):
            await until(lambda: broker.running)
            gate.refuse(b"-ERR 'Authorization Violation'\r\n")
            await asyncio.Event().wait()

    with pytest.RaisesGroup(pytest.RaisesExc(Unavailable, match="for good"), flatten_subgroups=True):
        await consume()
    await asyncio.sleep(0.1)
    gc.collect()  # asyncio logs the exception of nats-py's task here, and not in the middle of another test


async def test_a_password_that_is_refused_at_the_start_is_tried_again(
    embedded: Servers, gates, until, caplog
):
    gate, url = await gates(embedded.nats_url)
    gate.refuse(b"-ERR 'Authorization Violation'\r\n")
    broker = Broker(url)
    async with bus.consuming(broker):
        await until(lambda: "refuses the connection" in caplog.text)
        assert "@" not in caplog.text.split("refuses the connection")[0].splitlines()[-1]
        gate.refuse(None)
        await until(lambda: broker.running)


async def test_leaving_does_not_wait_for_a_server_that_is_not_there(embedded: Servers, gates, until):
    gate, url = await gates(embedded.nats_url)
    await gate.shut()
    async with asyncio.timeout(60), bus.consuming(Broker(url)):
        await asyncio.sleep(0.05)
    await gate.open()
    async with asyncio.timeout(60):
        broker = Broker(url)
        async with bus.consuming(broker):
            await until(lambda: broker.running)
            await gate.shut()
            await asyncio.sleep(0.05)


async def test_a_stream_is_acknowledged_as_far_as_its_slowest_consumer(embedded: Servers):
    async with Broker(embedded.nats_url) as broker:
        jetstream = broker.connection.jetstream()
        await jetstream.delete_stream("SNAPSHOTTER")  # with the events of other tests
        await declare_streams(embedded.nats_url)
        empty = await broker.stream_state("SNAPSHOTTER")
        assert (empty.last_sequence, empty.acknowledged_sequence) == (0, 0)
        events = [bus.CloudEvent(f"periplus.snapshotter.v1.X.p.{i}", {}, b"") for i in range(3)]
        assert await broker.publish_events(events) == [1, 2, 3]
        for name, acknowledged in (("quick", 3), ("slow", 1)):
            subscription = await jetstream.pull_subscribe("periplus.snapshotter.>", durable=name)
            for message in await subscription.fetch(acknowledged):
                await message.ack_sync()
        assert await broker.stream_state("SNAPSHOTTER") == StreamState(empty.created_at, 3, 1)
        await jetstream.delete_stream("SNAPSHOTTER")
        with pytest.raises(Unavailable, match="SNAPSHOTTER does not answer") as caught:
            await broker.stream_state("SNAPSHOTTER")
        assert isinstance(caught.value.__cause__, NotFoundError)
        await declare_streams(embedded.nats_url)
        assert (await broker.stream_state("SNAPSHOTTER")).created_at > empty.created_at
