"""Durable consumers in batches on a real JetStream: what is acknowledged, redelivered, and what becomes a dead letter."""

import asyncio
import json
import re
import secrets
import socket
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from nats.aio.msg import Msg
from nats.js.api import ConsumerConfig, DeliverPolicy

from periplus.cache.v1.events_pb2 import ArtifactsDigested, EntryInvalidated, EntryRecorded
from periplus.types.v1.step_pb2 import Artifact
from periplus_common import bus
from periplus_common.bus import Batch, Broker, BusSettings
from periplus_common.errors import Conflict, Invalid, NotFound, Refused, Unauthenticated, Unavailable
from periplus_common.streams import declare_streams
from periplus_local.stack import programs
from periplus_local.stack.testing import Servers

COUNT = 300

Records = Batch[EntryRecorded]
Handler = Callable[[Any], Any]


def seconds(value: float) -> timedelta:
    return timedelta(seconds=value)


def event(step: str, kind=EntryRecorded, **fields: object) -> bus.CloudEvent:
    names = ("producer_run", "producer_step") if kind is EntryRecorded else ("run", "step")
    message = kind(project="p", **dict(zip(names, ("r", step), strict=True)), **fields)
    return bus.cloud_event(
        message, project="p", run="r", key=step + secrets.token_hex(8), at=datetime.now(UTC)
    )


def steps(batch: Records) -> list[int]:
    return [int(received.data.producer_step) for received in batch]


@dataclass
class Jetstream:
    """The stream CACHE, emptied, and a durable consumer of one test."""

    broker: Broker
    durable: str

    async def publish(self, count: int = COUNT) -> None:
        await self.broker.publish_events([event(str(i)) for i in range(count)])

    async def pending(self) -> int:
        """Messages that are neither acknowledged nor given up."""
        info = await self.broker.connection.jetstream().consumer_info("CACHE", self.durable)
        return (info.num_pending or 0) + (info.num_ack_pending or 0)

    async def settled(self) -> None:
        async with asyncio.timeout(60):
            while await self.pending():  # noqa: ASYNC110 - a consumer has no event for it
                await asyncio.sleep(0.05)

    async def dead_letters(self, count: int) -> list[Msg]:
        subscription = await self.broker.connection.jetstream().subscribe(
            f"periplus-dead.{self.durable}", config=ConsumerConfig(deliver_policy=DeliverPolicy.ALL)
        )
        return [await subscription.next_msg(timeout=60) for _ in range(count)]


@pytest.fixture
async def jetstream(embedded: Servers) -> AsyncIterator[Jetstream]:
    async with Broker(embedded.nats_url) as broker:
        await broker.connection.jetstream().purge_stream("CACHE")
        yield Jetstream(broker, f"test-{secrets.token_hex(6)}")


@asynccontextmanager
async def consuming(
    url: str, durable: str, handler: Handler, settings: BusSettings | None = None, **options: int
) -> AsyncIterator[Broker]:
    broker = Broker(url, settings=settings)
    broker.batches("CACHE", durable, **({"batch": 100} | options))(handler)
    async with bus.consuming(broker):
        yield broker


async def test_a_refused_event_is_a_dead_letter_and_the_rest_of_its_batch_is_handled_once(
    embedded: Servers, jetstream: Jetstream, until
):
    handled: list[int] = []

    async def handle(batch: Records) -> None:
        for received in batch:
            if int(received.data.producer_step) % 10 == 0:
                batch.refuse(received, Invalid("not wanted"))
            else:
                handled.append(int(received.data.producer_step))

    await jetstream.publish()
    async with consuming(embedded.nats_url, jetstream.durable, handle):
        await until(lambda: len(handled) == COUNT * 9 // 10)
        letters = await jetstream.dead_letters(COUNT // 10)
        await jetstream.settled()
    assert sorted(handled) == [i for i in range(COUNT) if i % 10]
    found = sorted(int(EntryRecorded.FromString(letter.data).producer_step) for letter in letters)
    assert found == [i for i in range(COUNT) if i % 10 == 0]
    assert json.loads(letters[0].headers["periplus-reason"]) == "Invalid: not wanted"


@pytest.mark.parametrize(
    ("error", "tries"),
    [
        (Invalid("no", field="a"), 1),
        (Conflict("no"), 1),
        (NotFound("no"), 10),
        (Refused("no"), 10),
        (Unauthenticated("no"), 10),
        (KeyError("no\nüber"), 10),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_a_failing_event_is_a_dead_letter_with_its_reason_after_as_many_tries_as_its_kind_has(
    embedded: Servers, jetstream: Jetstream, error: Exception, tries: int
):
    deliveries: list[int] = []

    async def handle(batch: Records) -> None:
        deliveries.append(batch[0].message.metadata.num_delivered)
        raise error

    await jetstream.publish(1)
    settings = BusSettings(retry_delay=seconds(0.02), early_retry_delay=seconds(0.01))
    async with consuming(embedded.nats_url, jetstream.durable, handle, settings):
        (dead,) = await jetstream.dead_letters(1)
        await jetstream.settled()
    assert deliveries == list(range(1, tries + 1))
    assert dead.headers
    assert json.loads(dead.headers["periplus-reason"]) == f"{type(error).__name__}: {error}"
    assert dead.headers["periplus-consumer"] == jetstream.durable
    assert re.fullmatch(r"\d+", dead.headers["periplus-sequence"])
    assert dead.headers["ce-type"] == "periplus.cache.v1.EntryRecorded"
    assert EntryRecorded.FromString(dead.data).project == "p"


async def test_what_is_no_valid_event_is_a_dead_letter_and_the_rest_is_handled(
    embedded: Servers, jetstream: Jetstream, until
):
    handled: list[str] = []

    async def handle(batch: Batch[EntryRecorded | ArtifactsDigested]) -> None:
        handled.extend(received.data.producer_step for received in batch)  # no other event is valid

    bad = event("bad")
    await jetstream.broker.publish_events(
        [
            event("0"),
            bus.CloudEvent(bad.subject, bad.headers, b"\xff\xff"),
            bus.CloudEvent(bad.subject, {"Nats-Msg-Id": secrets.token_hex(6)}, b""),
            event("rule", ArtifactsDigested, outputs=[Artifact(name="out", digest="md5:0")]),
            event("1"),
        ]
    )
    async with consuming(embedded.nats_url, jetstream.durable, handle):
        letters = await jetstream.dead_letters(3)
        await jetstream.settled()
        await until(lambda: len(handled) == 2)
    reasons = [json.loads(letter.headers["periplus-reason"]) for letter in letters]
    assert reasons[0] == "Invalid: the body is not a periplus.cache.v1.EntryRecorded"
    assert reasons[1] == "Invalid: the header ce-type is '', which this consumer does not read"
    assert reasons[2].startswith("Invalid: outputs[0].object: ")
    assert sorted(handled) == ["0", "1"]


async def test_a_batch_of_unreadable_messages_alone_does_not_call_its_handler(
    embedded: Servers, jetstream: Jetstream
):
    async def handle(batch: Records) -> None:
        raise AssertionError

    bad = event("bad")
    await jetstream.broker.publish_events([bus.CloudEvent(bad.subject, bad.headers, b"\xff\xff")])
    async with consuming(embedded.nats_url, jetstream.durable, handle):
        (letter,) = await jetstream.dead_letters(1)
        await jetstream.settled()
    assert "the body is not" in letter.headers["periplus-reason"]


async def test_messages_wait_for_an_unavailable_dependency_without_using_up_deliveries(
    embedded: Servers, jetstream: Jetstream, until
):
    tries = 0
    handled: list[int] = []

    async def handle(batch: Records) -> None:
        nonlocal tries
        tries += 1
        if tries < 3 * BusSettings.max_deliveries:
            raise Unavailable("Postgres is restarting")
        assert all(received.message.metadata.num_delivered == 1 for received in batch)
        handled.extend(steps(batch))

    await jetstream.publish()
    settings = BusSettings(unavailable_pause=seconds(0.01))
    async with consuming(embedded.nats_url, jetstream.durable, handle, settings):
        await until(lambda: len(handled) == COUNT)
    assert sorted(handled) == list(range(COUNT))


async def test_a_batch_that_fails_as_a_whole_is_handled_one_by_one(
    embedded: Servers, jetstream: Jetstream, until
):
    handled: list[int] = []

    async def handle(batch: Records) -> None:
        if 7 in steps(batch):
            raise Invalid("there is a seven")
        handled.extend(steps(batch))

    await jetstream.publish()
    async with consuming(embedded.nats_url, jetstream.durable, handle):
        await until(lambda: len(handled) == COUNT - 1)
        await jetstream.settled()
    assert sorted(handled) == [i for i in range(COUNT) if i != 7]


async def test_failing_events_in_every_batch_do_not_hold_up_the_others(
    embedded: Servers, jetstream: Jetstream, until
):
    handled: set[int] = set()

    async def handle(batch: Records) -> None:
        if any(step % 25 == 0 for step in steps(batch)):
            raise Invalid("poison")
        handled.update(steps(batch))

    await jetstream.publish()
    async with consuming(embedded.nats_url, jetstream.durable, handle):
        await until(lambda: len(handled) == COUNT - 12)
        await jetstream.settled()
    assert handled == {i for i in range(COUNT) if i % 25}


async def test_an_early_event_is_redelivered_soon(embedded: Servers, jetstream: Jetstream, until):
    tries = 0

    async def handle(batch: Records) -> None:
        nonlocal tries
        for received in batch:
            if received.data.producer_step == "0":
                tries += 1
                if tries < 3:
                    batch.refuse(received, NotFound("not yet"))

    await jetstream.publish()
    settings = BusSettings(retry_delay=seconds(600), early_retry_delay=seconds(0.05))
    async with consuming(embedded.nats_url, jetstream.durable, handle, settings):
        await until(lambda: tries >= 3)
        await jetstream.settled()


async def test_consuming_continues_after_the_connection_was_lost(
    embedded: Servers, jetstream: Jetstream, gates, until
):
    gate, url = await gates(embedded.nats_url)
    handled: set[int] = set()

    async def handle(batch: Records) -> None:
        if not handled:
            await gate.shut()
        handled.update(steps(batch))

    await jetstream.publish()
    async with consuming(url, jetstream.durable, handle, BusSettings(ack_wait=seconds(1))):
        await until(lambda: len(handled) > 0)
        await asyncio.sleep(0.2)
        await gate.open()
        await until(lambda: len(handled) == COUNT)
        await jetstream.settled()


@asynccontextmanager
async def nats_server(port: int, directory: Path) -> AsyncIterator[None]:
    """A NATS server of its own, killed at the end of the block; its streams are in the directory."""
    arguments = ("-a", "127.0.0.1", "-p", str(port), "-js", "-sd", str(directory))
    process = await asyncio.create_subprocess_exec(
        programs.nats_server(), *arguments, stderr=subprocess.DEVNULL
    )
    try:
        yield
    finally:
        process.kill()
        await process.wait()


async def test_consuming_continues_at_once_after_the_server_was_killed_and_restarted(tmp_path: Path, until):
    """The requests for messages that were parked at the old process are lost."""
    handled: list[int] = []

    async def handle(batch: Records) -> None:
        handled.extend(steps(batch))

    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    url = f"nats://127.0.0.1:{port}"
    publisher = Broker(url)
    settings = BusSettings(pull_expiry=seconds(600))
    async with consuming(url, "test-restart", handle, settings), bus.consuming(publisher):
        async with nats_server(port, tmp_path):
            await until(lambda: publisher.running)
            await declare_streams(url)
            await publisher.publish_events([event("1")])
            await until(lambda: handled == [1])
        async with nats_server(port, tmp_path):
            await until(lambda: publisher.connection.is_connected)
            await asyncio.sleep(1)  # until the consuming broker is, too
            await publisher.publish_events([event("2")])
            await until(lambda: handled == [1, 2])  # and not after the requests have expired


async def test_a_deleted_consumer_is_declared_again(embedded: Servers, jetstream: Jetstream, until):
    handled: list[int] = []

    async def handle(batch: Records) -> None:
        handled.extend(steps(batch))

    await jetstream.publish()
    async with consuming(embedded.nats_url, jetstream.durable, handle):
        await until(lambda: len(handled) == COUNT)
        await asyncio.sleep(0.1)
        await jetstream.broker.connection.jetstream().delete_consumer("CACHE", jetstream.durable)
        # The new one has no record of what was acknowledged: everything is delivered again.
        await until(lambda: len(handled) == 2 * COUNT)


async def test_a_consumer_of_several_types_acknowledges_the_others_of_its_stream_unseen(
    embedded: Servers, jetstream: Jetstream, until
):
    handled: list[str] = []

    async def handle(batch: Batch[EntryRecorded | ArtifactsDigested]) -> None:
        handled.extend(type(received.data).__name__ for received in batch)

    others = [
        bus.cloud_event(EntryInvalidated(project="p"), project="p", run="", key=f"{i}", at=datetime.now(UTC))
        for i in range(COUNT)
    ]
    await jetstream.broker.publish_events([*others, event("1"), event("1", ArtifactsDigested)])
    # More of them than the server sends for one request, and than it sends without an acknowledgement.
    async with consuming(embedded.nats_url, jetstream.durable, handle, batch=10):
        await until(lambda: len(handled) == 2)
        await jetstream.settled()
    assert handled == ["EntryRecorded", "ArtifactsDigested"]
    letters = f"periplus-dead.{jetstream.durable}"
    info = await jetstream.broker.connection.jetstream().stream_info("DEAD", subjects_filter=letters)
    assert not info.state.subjects


async def test_a_durable_with_other_filters_goes_on_where_it_was(
    embedded: Servers, jetstream: Jetstream, until
):
    handled: list[str] = []

    async def handle(batch: Batch[EntryRecorded | ArtifactsDigested]) -> None:
        handled.extend(received.data.producer_step for received in batch)

    context = jetstream.broker.connection.jetstream()
    types = (EntryRecorded, ArtifactsDigested)
    before = ConsumerConfig(
        durable_name=jetstream.durable,
        filter_subjects=[f"{kind.DESCRIPTOR.full_name}.*.*" for kind in types],
        ack_wait=BusSettings().ack_wait.total_seconds(),
        max_deliver=-1,
        max_ack_pending=400,
    )
    await context.add_consumer("CACHE", before)
    await jetstream.publish(3)
    subscription = await context.pull_subscribe_bind(durable=jetstream.durable, stream="CACHE")
    for message in await subscription.fetch(2):
        await message.ack_sync()
    async with consuming(embedded.nats_url, jetstream.durable, handle):
        await until(lambda: handled)
        await jetstream.settled()
    assert handled == ["2"]


async def test_consuming_starts_before_its_stream_exists(embedded: Servers, jetstream: Jetstream, until):
    handled: list[int] = []

    async def handle(batch: Records) -> None:
        handled.extend(steps(batch))

    await jetstream.broker.connection.jetstream().delete_stream("CACHE")
    async with consuming(embedded.nats_url, jetstream.durable, handle):
        await asyncio.sleep(0.3)
        await declare_streams(embedded.nats_url)
        await jetstream.publish(3)
        await until(lambda: len(handled) == 3)


async def test_consuming_starts_before_its_server(embedded: Servers, jetstream: Jetstream, gates, until):
    gate, url = await gates(embedded.nats_url)
    await gate.shut()
    handled: list[int] = []

    async def handle(batch: Records) -> None:
        handled.extend(steps(batch))

    await jetstream.publish(3)
    async with consuming(url, jetstream.durable, handle):
        await asyncio.sleep(0.2)
        assert handled == []
        await gate.open()
        await until(lambda: len(handled) == 3)


async def test_a_service_consumes_as_its_own_nats_user(embedded: Servers, jetstream: Jetstream, until):
    handled: list[int] = []

    async def handle(batch: Records) -> None:
        if 0 in steps(batch):
            batch.refuse(next(r for r in batch if r.data.producer_step == "0"), Invalid("no"))
        handled.extend(steps(batch))

    jetstream.durable = "lineage-cache"  # the user may use this one of the stream
    await jetstream.publish(3)
    async with consuming(embedded.service_nats_urls["lineage"], jetstream.durable, handle):
        await until(lambda: len(handled) == 3)
        await jetstream.dead_letters(1)
        await jetstream.settled()
    await jetstream.broker.connection.jetstream().delete_consumer("CACHE", jetstream.durable)


async def test_what_a_killed_consumer_held_is_redelivered(embedded: Servers, jetstream: Jetstream, until):
    held = asyncio.Event()

    async def hold(batch: Records) -> None:
        held.set()
        await asyncio.Event().wait()

    deliveries: dict[int, int] = {}

    async def handle(batch: Records) -> None:
        deliveries.update((int(r.data.producer_step), r.message.metadata.num_delivered) for r in batch)

    await jetstream.publish()
    settings = BusSettings(ack_wait=seconds(0.3), graceful_timeout=seconds(0.1))
    async with consuming(embedded.nats_url, jetstream.durable, hold, settings):
        await held.wait()
    async with consuming(embedded.nats_url, jetstream.durable, handle, settings):
        await until(lambda: len(deliveries) == COUNT)
    assert max(deliveries.values()) > 1


async def test_leaving_waits_for_running_handlers_and_returns_the_rest_to_the_server(
    embedded: Servers, jetstream: Jetstream, until
):
    started: list[int] = []
    done: list[int] = []

    async def slow(batch: Records) -> None:
        started.extend(steps(batch))
        await asyncio.sleep(0.5)
        done.extend(steps(batch))

    async def quick(batch: Records) -> None:
        done.extend(steps(batch))

    await jetstream.publish()
    settings = BusSettings(ack_wait=seconds(600))
    async with consuming(embedded.nats_url, jetstream.durable, slow, settings, batch=50, max_in_flight=1):
        await until(lambda: started)
    assert done == started
    async with consuming(embedded.nats_url, jetstream.durable, quick, settings):
        await until(lambda: len(done) == COUNT)
    assert sorted(done) == list(range(COUNT))


async def test_leaving_does_not_wait_for_an_unavailable_dependency(
    embedded: Servers, jetstream: Jetstream, until
):
    tries = 0

    async def unavailable(batch: Records) -> None:
        nonlocal tries
        tries += 1
        raise Unavailable("Postgres is down")

    handled: list[int] = []

    async def handle(batch: Records) -> None:
        handled.extend(steps(batch))

    await jetstream.publish(3)
    settings = BusSettings(ack_wait=seconds(600))
    async with consuming(embedded.nats_url, jetstream.durable, unavailable, settings):
        await until(lambda: tries)
    async with consuming(embedded.nats_url, jetstream.durable, handle, settings):
        await until(lambda: len(handled) == 3)


async def test_messages_that_are_handled_or_wait_for_a_handler_are_not_redelivered(
    embedded: Servers, jetstream: Jetstream, until
):
    started: list[int] = []

    async def handle(batch: Records) -> None:
        started.extend(steps(batch))
        await asyncio.sleep(7)  # far longer than the server waits for an ack

    await jetstream.publish()
    async with consuming(embedded.nats_url, jetstream.durable, handle, BusSettings(ack_wait=seconds(3))):
        await until(lambda: len(started) >= COUNT)  # two batches are handled, the third waits for them
        await asyncio.sleep(4)
    assert sorted(started) == list(range(COUNT))


async def test_a_message_is_never_given_up_without_a_dead_letter(
    embedded: Servers, jetstream: Jetstream, until
):
    """However often it is redelivered because its consumers die while they handle it."""
    handled: list[int] = []

    async def handle(batch: Records) -> None:
        handled.extend(steps(batch))

    settings = BusSettings(ack_wait=seconds(0.05))
    await jetstream.publish(1)
    async with consuming(embedded.nats_url, jetstream.durable, handle, settings):
        await until(lambda: len(handled) == 1)
    subscription = await jetstream.broker.connection.jetstream().pull_subscribe_bind(
        jetstream.durable, "CACHE"
    )
    await jetstream.publish(1)
    for _ in range(settings.max_deliveries + 5):
        (message,) = await subscription.fetch(1, timeout=10)
    assert message.metadata.num_delivered == settings.max_deliveries + 5
    async with consuming(embedded.nats_url, jetstream.durable, handle, settings):
        await until(lambda: len(handled) == 2)


async def test_a_decoder_that_returns_another_batch_acknowledges_nothing(
    embedded: Servers, jetstream: Jetstream, monkeypatch: pytest.MonkeyPatch
):
    called = asyncio.Event()

    async def decode(self: bus.Codec, msg: object) -> Batch[EntryRecorded]:
        called.set()
        return Batch([], {})

    monkeypatch.setattr(bus.Codec, "decode_batch", decode)

    async def handle(batch: Records) -> None:
        raise AssertionError

    await jetstream.publish(3)
    async with consuming(embedded.nats_url, jetstream.durable, handle):
        await called.wait()
        await asyncio.sleep(0.2)
        assert await jetstream.pending() == 3
    info = await jetstream.broker.connection.jetstream().stream_info(
        "DEAD", subjects_filter=f"periplus-dead.{jetstream.durable}"
    )
    assert not info.state.subjects
