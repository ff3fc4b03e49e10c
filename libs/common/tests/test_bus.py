"""What an event is, what a link promises, and what becomes of a message that fails, on a real JetStream."""

import asyncio
import json
import re
import secrets
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.aio.msg import Msg
from opentelemetry.trace import SpanKind

from periplus.cache.v1.events_pb2 import EntryInvalidated, EntryRecorded
from periplus_common import bus, pull, telemetry
from periplus_common.bus import legacy
from periplus_common.errors import Conflict, Invalid, NotFound, Refused, Unauthenticated, Unavailable
from periplus_local.stack.testing import Servers

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def event(run: str = "r", key: str = "k", kind=EntryRecorded, **fields: object) -> bus.CloudEvent:
    fields["run" if "run" in kind.DESCRIPTOR.fields_by_name else "producer_run"] = run
    return bus.cloud_event(kind(project="p", **fields), project="p", run=run, key=key, at=AT)


def test_telling_an_event_again_is_telling_the_same():
    one, other = event(producer_step="a"), event(producer_step="b")
    assert one.headers["ce-id"] == other.headers["ce-id"] == other.headers["Nats-Msg-Id"]
    assert uuid.UUID(one.headers["ce-id"])


@given(st.tuples(st.sampled_from(["r", "s"]), st.text("ab/", max_size=3)), st.data())
def test_events_of_another_kind_project_run_or_key_are_others(named: tuple[str, str], data):
    other = data.draw(st.tuples(st.sampled_from(["r", "s"]), st.text("ab/", max_size=3)))
    ids = [event(*name).headers["ce-id"] for name in (named, other)]
    assert (ids[0] == ids[1]) == (named == other)
    kind = bus.cloud_event(EntryInvalidated(), project="p", run=named[0], key=named[1], at=AT)
    assert kind.headers["ce-id"] != ids[0]


@pytest.mark.parametrize("run", ["a.b.c", "plain", ""])
def test_an_event_has_the_headers_of_cloudevents_and_a_subject_of_six_parts(run: str):
    told = event(run)
    assert told.headers == {
        "ce-specversion": "1.0",
        "ce-id": told.headers["ce-id"],
        "ce-type": "periplus.cache.v1.EntryRecorded",
        "ce-source": "/periplus/cache",
        "ce-subject": f"p/{run}",
        "ce-time": "2026-01-02T03:04:05+00:00",
        "content-type": "application/protobuf",
        "Nats-Msg-Id": told.headers["ce-id"],
    }
    assert told.subject == f"periplus.cache.v1.EntryRecorded.p.{run.replace('.', '_') or '-'}"
    assert EntryRecorded.FromString(told.body).producer_run == run


def test_an_event_carries_the_trace_that_it_was_made_in():
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with telemetry.continuing("x", {"traceparent": trace}, SpanKind.SERVER):
        assert trace[:35] in event().headers["traceparent"]


async def test_what_is_published_twice_is_stored_once(embedded: Servers):
    told = event(secrets.token_hex(6))
    async with bus.link(embedded.nats_url) as link:
        await link.publish([told, told])
        await link.publish([told])
        await link.publish([])
        info = await (await link.client()).jetstream().stream_info("CACHE", subjects_filter=told.subject)
    assert info.state.subjects == {told.subject: 1}


async def test_those_events_are_named_that_were_not_taken(embedded: Servers, monkeypatch):
    monkeypatch.setattr(legacy, "PUBLISH_TIMEOUT", 1.0)
    run = secrets.token_hex(6)
    events = [event(run, str(i)) for i in range(5)]
    events[1] = bus.CloudEvent("periplus.nobody.v1.X.p.r", events[1].headers, b"")
    events[3] = bus.CloudEvent(events[3].subject, events[3].headers, bytes((1 << 20) + 1))
    async with bus.link(embedded.nats_url) as link:
        with pytest.raises(bus.NotStored, match="2 of 5 events, the first") as caught:
            await link.publish(events)
        assert sorted(caught.value.stored) == [0, 2, 4]
        info = await (await link.client()).jetstream().stream_info("CACHE", subjects_filter=events[0].subject)
    assert info.state.subjects == {events[0].subject: 3}


async def test_a_server_that_was_never_there_is_unavailable_and_used_when_it_comes(
    embedded: Servers, gates, monkeypatch
):
    monkeypatch.setattr(legacy, "PUBLISH_TIMEOUT", 0.2)
    gate, url = await gates(embedded.nats_url)
    await gate.shut()
    told = event(secrets.token_hex(6))
    async with bus.link(url) as link:
        with pytest.raises(Unavailable, match="NATS is away"):
            await link.publish([told])
        await gate.open()
        await asyncio.wait_for(link.client(), 10)
        monkeypatch.setattr(legacy, "PUBLISH_TIMEOUT", 5)
        await link.publish([told])


async def test_a_publish_that_is_given_up_leaves_the_link_usable(embedded: Servers, gates):
    gate, url = await gates(embedded.nats_url)
    told = event(secrets.token_hex(6))
    async with bus.link(url) as link:
        await link.client()
        await gate.shut()
        publishing = asyncio.create_task(link.publish([told]))
        await asyncio.sleep(0.1)
        publishing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await publishing
        await gate.open()
        async with asyncio.timeout(20):
            while True:
                try:
                    return await link.publish([told])
                except Unavailable:
                    continue


async def test_a_connection_that_the_server_ends_for_good_ends_the_block(embedded: Servers, gates):
    gate, url = await gates(embedded.nats_url)
    with pytest.RaisesGroup(pytest.RaisesExc(Unavailable, match="for good"), flatten_subgroups=True):
        async with bus.link(url) as link, asyncio.timeout(20):
            await link.client()
            gate.say(b"-ERR 'no more of you'\r\n")
            await asyncio.Event().wait()


async def test_leaving_does_not_wait_for_a_server_that_is_away(embedded: Servers, gates):
    gate, url = await gates(embedded.nats_url)
    await gate.shut()
    async with asyncio.timeout(20), bus.link(url):
        await asyncio.sleep(0.05)


@asynccontextmanager
async def tried(url: str, handle, monkeypatch) -> AsyncIterator[tuple[bus.Link, str]]:
    """One event that `handle` is called with, again and again at once."""
    monkeypatch.setattr(legacy, "RETRY_DELAY", 0.02)
    monkeypatch.setattr(legacy, "EARLY_DELAY", 0.01)
    told = event(secrets.token_hex(6))
    consumer = pull.Consumer("CACHE", f"test-{secrets.token_hex(6)}", (told.subject,))
    async with bus.link(url) as link:
        await link.publish([told])
        async with pull.consuming(link, consumer, handle):
            yield link, consumer.name


async def letter(link: bus.Link, consumer: str) -> Msg:
    dead = (
        await (await link.client()).jetstream().subscribe(f"periplus-dead.{consumer}", ordered_consumer=True)
    )
    return await dead.next_msg(timeout=15)


@pytest.mark.parametrize(
    ("error", "tries"),
    [
        (Invalid("no", field="a"), 1),
        (Conflict("no"), 1),
        (NotFound("no"), legacy.MAX_DELIVER),
        (Refused("no"), legacy.MAX_DELIVER),
        (Unauthenticated("no"), legacy.MAX_DELIVER),
        (KeyError("no\nüber"), legacy.MAX_DELIVER),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_what_fails_is_dead_with_its_reason_after_so_many_tries_as_its_kind_has(
    embedded: Servers, monkeypatch, error: Exception, tries: int
):
    seen: list[int] = []

    async def handle(batch: list[Msg]) -> None:
        seen.append(batch[0].metadata.num_delivered)
        raise error

    async with tried(embedded.nats_url, handle, monkeypatch) as (link, consumer):
        dead = await letter(link, consumer)
        await asyncio.sleep(0.1)
    assert seen == list(range(1, tries + 1))
    assert json.loads(dead.headers["periplus-reason"]) == f"{type(error).__name__}: {error}"
    assert dead.headers["periplus-consumer"] == consumer
    assert re.fullmatch(r"\d+", dead.headers["periplus-sequence"])
    assert dead.headers["ce-type"] == "periplus.cache.v1.EntryRecorded"
    assert EntryRecorded.FromString(dead.data).project == "p"


async def test_a_message_is_never_given_up_without_a_dead_letter(embedded: Servers, monkeypatch):
    """However often it is redelivered because its consumers die with it in hand."""
    monkeypatch.setattr(legacy, "ACK_WAIT", 0.05)
    handled: list[int] = []
    told = event(secrets.token_hex(6))
    consumer = pull.Consumer("CACHE", f"test-{secrets.token_hex(6)}", (told.subject,))
    async with bus.link(embedded.nats_url) as link:
        await link.publish([told])
        client = await link.client()
        await consumer.declare(client)
        subscription = await client.jetstream().pull_subscribe_bind(consumer.name, "CACHE")
        for _ in range(legacy.MAX_DELIVER + 5):
            (message,) = await subscription.fetch(1, timeout=10)
        assert message.metadata.num_delivered == legacy.MAX_DELIVER + 5

        async def handle(batch: list[Msg]) -> None:
            handled.append(len(batch))

        async with pull.consuming(link, consumer, handle), asyncio.timeout(20):
            while not handled:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
