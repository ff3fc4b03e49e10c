"""Batches from a JetStream consumer: a hundred events are stored as quickly as one.

nats-py's `fetch` makes a task and a timer for each message. Here one subscription takes what comes, and one
request asks for many; the next batch travels while this one is worked on.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js.api import AckPolicy, ConsumerConfig

from periplus_common.bus import legacy as bus
from periplus_common.errors import Unavailable
from periplus_common.runtime import background_task

log = logging.getLogger(__name__)

Refusals = list[tuple[Msg, Exception]]
"""Messages that can not be handled, each with its reason; the rest of their batch is."""

Handle = Callable[[list[Msg]], Awaitable[Refusals | None]]

PAUSE = 1.0  # seconds before a batch is tried again whose handler lacks something


@dataclass(frozen=True)
class Consumer:
    """A durable consumer: which stream, under which name, which subjects, how many at once."""

    stream: str
    name: str
    subjects: tuple[str, ...] = ()
    batch: int = 256
    flights: int = 2  # batches worked on at the same time
    expires: float = 5.0  # seconds that a request stays parked at the server

    async def declare(self, client: Client) -> None:
        """Make the durable consumer what this says, whether or not it exists."""
        config = ConsumerConfig(
            durable_name=self.name,
            filter_subjects=list(self.subjects) or None,
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=bus.ACK_WAIT,
            max_deliver=-1,  # the last failure is ours to bury; the server would just fall silent
            max_ack_pending=self.batch * (self.flights + 2),
        )
        await client.jetstream().add_consumer(self.stream, config)

    async def declared(self, client: Client) -> None:
        """The same, however long its stream or the server is away."""
        while True:
            try:
                return await self.declare(client)
            except (NatsError, TimeoutError) as error:
                if client.is_closed:
                    raise
                log.warning("%s waits for its stream %s: %s", self.name, self.stream, error)
                await asyncio.sleep(0.5)


class Inbox:
    """What has come, and how much more was asked for."""

    def __init__(self, client: Client, consumer: Consumer) -> None:
        self._client = client
        self._consumer = consumer
        self._subject = f"$JS.API.CONSUMER.MSG.NEXT.{consumer.stream}.{consumer.name}"
        self._reply = client.new_inbox()
        self._came: list[Msg] = []
        self._news = asyncio.Event()
        self._asked = 0
        self._deadline = 0.0
        self._pause = 0.0
        self._lost = False

    async def open(self) -> None:
        """Start to listen. Nothing comes before it is asked for."""
        await self._client.subscribe(
            self._reply, cb=self._take, pending_msgs_limit=-1, pending_bytes_limit=-1
        )

    def forget(self) -> None:
        """The requests parked at the old server process are gone: ask anew."""
        self._asked = 0
        self._lost = True
        self._news.set()

    async def next(self) -> list[Msg]:
        """What is there, one at least, a batch at most. Waits for ever, and asks again by itself."""
        loop = asyncio.get_running_loop()
        if self._came and self._asked < self._consumer.batch // 2:
            await self._ask(loop.time())
        while not self._came:
            if self._asked <= 0 or loop.time() > self._deadline:
                await asyncio.sleep(self._pause)
                await self._ask(loop.time())
            self._news.clear()
            alarm = loop.call_at(self._deadline, self._news.set)
            try:
                await self._news.wait()
            finally:
                alarm.cancel()
        batch, self._came = self._came[: self._consumer.batch], self._came[self._consumer.batch :]
        return batch

    def waiting(self) -> list[Msg]:
        """What has come and nobody works on yet."""
        return list(self._came)

    async def _take(self, message: Msg) -> None:
        status = message.headers.get("Status") if message.headers and not message.data else None
        if status is None:
            self._came.append(message)
            self._asked -= 1
        else:  # 404, 408, 409, 503: this request is over
            self._asked = 0
            self._pause = 0.0 if status in ("404", "408") else 0.2
            # Nobody answers, or the consumer was deleted: perhaps the servers' store was lost, and it with it.
            self._lost = status in ("409", "503")
        self._news.set()

    async def _ask(self, now: float) -> None:
        if self._lost:
            await self._consumer.declared(self._client)
            self._lost = False
            now = asyncio.get_running_loop().time()
        self._asked = max(self._asked, 0) + self._consumer.batch
        self._deadline = now + self._consumer.expires + 0.5
        request = {"batch": self._consumer.batch, "expires": int(self._consumer.expires * 1e9)}
        await self._client.publish(self._subject, json.dumps(request).encode(), reply=self._reply)


@asynccontextmanager
async def consuming(link: bus.Link, consumer: Consumer, handle: Handle) -> AsyncIterator[None]:
    """Give batches to `handle` for as long as the block is open, and acknowledge what it has handled.

    `handle` may see a message more than once and in any order. Those that it returns are refused, each by itself.
    When it raises, the batch is tried again one by one, so that one bad message does not hold up the others; while
    it raises `Unavailable`, the batch waits.
    """
    async with background_task(_consume(link, consumer, handle)):
        yield


async def _consume(link: bus.Link, consumer: Consumer, handle: Handle) -> None:
    client = await link.client()
    await consumer.declared(client)
    inbox = Inbox(client, consumer)
    link.on_reconnect(inbox.forget)
    await inbox.open()
    places = asyncio.Semaphore(consumer.flights)
    async with _in_hand(inbox.waiting), asyncio.TaskGroup() as flights:
        while True:
            await places.acquire()
            flights.create_task(_fly(link, consumer, handle, await inbox.next())).add_done_callback(
                lambda _: places.release()
            )


async def _fly(link: bus.Link, consumer: Consumer, handle: Handle, batch: list[Msg]) -> None:
    try:
        await _handle(link, consumer, handle, batch)
    except (NatsError, TimeoutError, Unavailable) as error:
        # Neither acknowledged nor refused: the server sends the batch again.
        log.warning("%s: %d messages will come again: %s", consumer.name, len(batch), error)


async def _handle(link: bus.Link, consumer: Consumer, handle: Handle, batch: list[Msg]) -> None:
    try:
        refusals = await _patiently(consumer, handle, batch)
    except Exception as error:  # noqa: BLE001 - the boundary: every failure gets its fate
        if len(batch) == 1:
            await bus.fail(link, batch[0], error, consumer.name)
            return
        for message in batch:
            await _handle(link, consumer, handle, [message])
        return
    refused = {id(message): error for message, error in refusals or ()}
    for message in batch:
        if id(message) in refused:
            await bus.fail(link, message, refused[id(message)], consumer.name)
        else:
            await message.ack()


async def _patiently(consumer: Consumer, handle: Handle, batch: list[Msg]) -> Refusals | None:
    """Handle a batch, however long what it needs is away: that must never use up a message's deliveries."""
    async with _in_hand(lambda: batch):
        while True:
            try:
                return await handle(batch)
            except Unavailable as error:
                log.warning("%s: %d messages wait: %s", consumer.name, len(batch), error)
                await asyncio.sleep(PAUSE)


@asynccontextmanager
async def _in_hand(held: Callable[[], list[Msg]]) -> AsyncIterator[None]:
    """Tell the server now and then of messages that wait or are worked on, so that a slow handler gets none again."""

    async def tell() -> None:
        while True:
            await asyncio.sleep(bus.ACK_WAIT / 3)
            with suppress(NatsError):  # without a connection the server sends them again, to whoever there is
                for message in held():
                    await message.in_progress()

    telling = asyncio.create_task(tell())
    try:
        yield
    finally:
        telling.cancel()
