"""The per-message path on a real JetStream: acknowledged once handled, and held while it is worked on."""

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest
from faststream.nats import PullSub
from opentelemetry.trace import SpanKind

from periplus.cache.v1.events_pb2 import EntryRecorded
from periplus_common import broker, bus, telemetry
from periplus_common.errors import Invalid, NotFound, Unavailable
from periplus_local.stack.testing import Servers, embedded

__all__ = ["embedded"]

STREAM = "CACHE"


@asynccontextmanager
async def consumed(
    url: str, run: str, count: int, handle: Callable[[str], Awaitable[None]], *, trace: str = ""
) -> AsyncIterator[str]:
    """Publish `count` events of a run, and consume them; those of other tests are passed over."""
    consumer = f"test-{secrets.token_hex(4)}"

    async def own(event: EntryRecorded) -> None:
        if event.run == run:
            await handle(event.step)

    sent = {"traceparent": trace} if trace else {}
    async with bus.link(url) as link:
        with telemetry.continuing("tell", sent, SpanKind.PRODUCER):
            events = [
                bus.event(
                    EntryRecorded(project="p", run=run, step=str(i)),
                    project="p", run=run, key=str(i), at=datetime.now(UTC),
                )
                for i in range(count)
            ]  # fmt: skip
        await link.publish(events)
        opened = broker.new_broker(url, link)
        broker.subscribe(opened, STREAM, EntryRecorded, consumer, own)
        async with broker.consuming(opened):
            yield consumer
        await (await link.client()).jetstream().delete_consumer(STREAM, consumer)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not true():  # noqa: ASYNC110 - what is waited for is a plain list
            await asyncio.sleep(0.02)


async def test_every_event_is_handled_once(embedded: Servers):
    seen: list[str] = []

    async def handle(step: str) -> None:
        seen.append(step)

    async with consumed(embedded.nats_url, secrets.token_hex(4), 50, handle):
        await until(lambda: len(seen) >= 50)
        await asyncio.sleep(0.2)
    assert sorted(seen, key=int) == [str(i) for i in range(50)]


async def test_a_message_that_is_worked_on_is_not_sent_again(embedded: Servers, monkeypatch):
    monkeypatch.setattr(bus, "ACK_WAIT", 0.5)
    started: list[str] = []
    ended: list[str] = []

    async def handle(step: str) -> None:
        started.append(step)
        await asyncio.sleep(1.6)  # three times as long as the server would wait
        ended.append(step)

    async with consumed(embedded.nats_url, secrets.token_hex(4), 1, handle):
        await until(lambda: bool(ended))
        await asyncio.sleep(0.7)
    assert started == ["0"]


async def test_a_message_whose_dependency_is_away_comes_again_for_as_long_as_it_is(
    embedded: Servers, monkeypatch
):
    monkeypatch.setattr(bus, "RETRY_DELAY", 0.01)
    tries = bus.MAX_DELIVER + 5
    seen: list[str] = []

    async def handle(step: str) -> None:
        seen.append(step)
        if len(seen) < tries:
            raise Unavailable("not yet")

    async with consumed(embedded.nats_url, secrets.token_hex(4), 1, handle):
        await until(lambda: len(seen) >= tries)
        await asyncio.sleep(0.2)
    assert len(seen) == tries


async def test_a_message_that_can_never_be_handled_is_dead_with_its_reason(embedded: Servers):
    run = secrets.token_hex(4)

    async def handle(step: str) -> None:
        raise Invalid("not so", field="step")

    async with consumed(embedded.nats_url, run, 1, handle) as consumer, bus.link(embedded.nats_url) as link:
        jetstream = (await link.client()).jetstream()
        dead = await jetstream.subscribe(f"periplus-dead.{consumer}", ordered_consumer=True)
        message = await dead.next_msg(timeout=10)
    assert "step: not so" in message.headers["periplus-reason"]
    assert EntryRecorded.FromString(message.data).run == run


async def test_handled_messages_are_no_news(embedded: Servers, caplog, capfd):
    handled: list[str] = []

    async def handle(step: str) -> None:
        handled.append(step)

    with caplog.at_level(logging.INFO, logger="periplus_common.broker"):
        async with consumed(embedded.nats_url, secrets.token_hex(4), 1, handle):
            await until(lambda: bool(handled))
    assert not [record for record in caplog.records if "Processed" in record.getMessage()]
    assert "Processed" not in capfd.readouterr().err


async def test_a_body_that_is_no_such_message_is_dead_at_once(embedded: Servers):
    run, handled = secrets.token_hex(4), []

    async def handle(step: str) -> None:
        handled.append(step)

    async with consumed(embedded.nats_url, run, 1, handle) as consumer, bus.link(embedded.nats_url) as link:
        jetstream = (await link.client()).jetstream()
        told = bus.event(EntryRecorded(), project="p", run=run, key="broken", at=datetime.now(UTC))
        await link.publish([bus.Event(told.subject, told.headers, b"\xff\xff\xff")])
        dead = await jetstream.subscribe(f"periplus-dead.{consumer}", ordered_consumer=True)
        message = await dead.next_msg(timeout=10)
        await until(lambda: handled == ["0"])
        await jetstream.purge_stream(STREAM, subject=told.subject)  # other tests' consumers would meet it
    assert "Invalid: not a periplus.cache.v1.EntryRecorded" in message.headers["periplus-reason"]
    assert message.data == b"\xff\xff\xff"


async def test_the_trace_of_an_event_goes_on_in_its_handler(embedded: Servers):
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    seen: list[str] = []

    async def handle(step: str) -> None:
        seen.append(telemetry.carry().get("traceparent", ""))

    with telemetry.continuing("x", {"traceparent": trace}, SpanKind.PRODUCER):
        carried = telemetry.carry()["traceparent"]
    assert carried[:35] == trace[:35]
    async with consumed(embedded.nats_url, secrets.token_hex(4), 1, handle, trace=trace):
        await until(lambda: bool(seen))
    assert seen[0][:35] == trace[:35]


async def test_one_that_comes_too_early_comes_again_soon(embedded: Servers, monkeypatch):
    monkeypatch.setattr(bus, "RETRY_DELAY", 600)
    monkeypatch.setattr(bus, "EARLY_DELAY", 0.05)
    seen: list[str] = []

    async def handle(step: str) -> None:
        seen.append(step)
        if len(seen) < 3:
            raise NotFound("not yet")

    async with consumed(embedded.nats_url, secrets.token_hex(4), 1, handle):
        await until(lambda: len(seen) >= 3)


@pytest.fixture(autouse=True)
def _quiet(caplog):
    caplog.set_level(logging.ERROR, logger="nats")


async def test_no_message_for_a_while_is_no_error(embedded: Servers, caplog, monkeypatch):
    monkeypatch.setattr(broker, "PullSub", lambda batch, timeout: PullSub(batch, timeout=0.02))
    handled: list[str] = []

    async def handle(step: str) -> None:
        handled.append(step)

    with caplog.at_level(logging.INFO, logger="periplus_common.broker"):
        async with consumed(embedded.nats_url, secrets.token_hex(4), 1, handle):
            await until(lambda: bool(handled))
            await asyncio.sleep(2)  # a hundred fetches in vain, of which some time out in Python's own way
            assert not [r for r in caplog.records if r.levelno >= logging.INFO]
