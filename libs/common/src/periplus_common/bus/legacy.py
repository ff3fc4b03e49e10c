"""The connection and the delivery of before `Broker`; goes once no service uses it."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js import JetStreamContext

from periplus_common.bus.broker import NotStored, StreamState
from periplus_common.bus.events import CloudEvent
from periplus_common.errors import Conflict, Invalid, NotFound, Unavailable
from periplus_common.runtime import background_task

log = logging.getLogger(__name__)

PREFIX = "periplus"
DEAD = "periplus-dead"
MAX_DELIVER = 10
ACK_WAIT = 6.0  # seconds; after so long without a word, what a consumer held comes again. It says a word thrice as often
PUBLISH_TIMEOUT = 5.0  # seconds; an answer that does not come says nothing, so the same id is sent again
RETRY_DELAY = 5.0  # seconds; JetStream backs off after a timeout, not after a nak
EARLY_DELAY = 0.5  # seconds; what is not there yet comes soon


class Link:
    """A connection that is made in the background and made again for ever, so that nothing of ours waits to start."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._client: asyncio.Future[Client] = asyncio.get_running_loop().create_future()
        self._reconnected: list[Callable[[], None]] = []
        self._refusal: str = ""
        self._ended = asyncio.Event()

    async def client(self) -> Client:
        """The connection, once there is one."""
        return await asyncio.shield(self._client)

    def on_reconnect(self, call: Callable[[], None]) -> None:
        """Have `call` called whenever the connection was lost and is there again."""
        self._reconnected.append(call)

    async def connect(self) -> None:
        """Keep trying until a server answers. From then on the client reconnects by itself.

        Raises `Unavailable` when it does not any more: the client closes for good at an error that it does not know,
        and nothing but a new process would connect again.
        """
        client = await nats.connect(
            self._url,
            max_reconnect_attempts=-1,
            reconnect_time_wait=0.5,
            ping_interval=10,
            error_cb=self._failed,
            reconnected_cb=self._back,
            closed_cb=self._end,
        )
        self._client.set_result(client)
        await self._ended.wait()
        raise Unavailable(f"NATS has ended the connection for good: {self._refusal or 'without a word'}")

    async def close(self) -> None:
        """Flush what is under way and part."""
        if self._client.done() and not self._client.cancelled():
            await self._client.result().close()

    async def publish_events(self, events: Sequence[CloudEvent]) -> list[int]:
        """Publish, and wait until JetStream has stored each: their sequences in the stream.

        Raises `NotStored`, which tells those that were stored, or `Unavailable` where no server was there yet.
        Sending again is harmless.
        """
        stream = await self._jetstream()
        answers = await asyncio.gather(
            *(stream.publish(e.subject, e.body, headers=dict(e.headers)) for e in events),
            return_exceptions=True,
        )
        failed = {place: answer for place, answer in enumerate(answers) if isinstance(answer, BaseException)}
        for answer in failed.values():
            if not isinstance(answer, NatsError | TimeoutError):
                raise answer
        taken = {place: ack.seq for place, ack in enumerate(answers) if not isinstance(ack, BaseException)}
        if failed:
            place, reason = next(iter(failed.items()))
            told = f"{len(failed)} of {len(events)} events, the first {events[place].subject}"
            raise NotStored(
                f"JetStream did not take {told}: {self._refusal or repr(reason)}", taken
            ) from reason
        return list(taken.values())

    publish = publish_events

    async def stream_state(self, name: str) -> StreamState:
        """A stream as it is now. Raises `Unavailable`, also where there is no such stream."""
        jetstream = await self._jetstream()
        try:
            found = await jetstream.stream_info(name)
            consumers = await jetstream.consumers_info(name)
        except (NatsError, TimeoutError) as error:
            raise Unavailable(f"the stream {name} does not answer: {error!r}") from error
        assert found.created is not None
        floors = [c.ack_floor.stream_seq for c in consumers if c.config.durable_name and c.ack_floor]
        return StreamState(found.created, found.state.last_seq, min(floors, default=0))

    async def _jetstream(self) -> JetStreamContext:
        try:
            client = await asyncio.wait_for(self.client(), PUBLISH_TIMEOUT)
        except TimeoutError as error:
            raise Unavailable(f"NATS is away: {self._refusal or 'it never answered'}") from error
        return client.jetstream(timeout=PUBLISH_TIMEOUT)

    async def _failed(self, error: Exception) -> None:
        # The client tells a denied publish as a time-out, and its reason only here.
        self._refusal = str(error)
        log.warning("NATS: %s", error)

    async def _end(self) -> None:
        self._ended.set()

    async def _back(self) -> None:
        self._refusal = ""
        log.info("NATS is there again")
        for call in self._reconnected:
            call()


@asynccontextmanager
async def link(url: str) -> AsyncIterator[Link]:
    """A link for as long as the block is open, whether or not a server is there. One that ends, ends the block."""
    opened = Link(url)
    try:
        async with background_task(opened.connect()):
            yield opened
    finally:
        await opened.close()


async def fail(link: Link, message: Msg, error: Exception, consumer: str) -> None:
    """Decide what becomes of a message whose handler failed: dead at once, early, or to be tried again.

    What waits for something that is away is tried for ever: an outage of a minute must cost no event.
    """
    spent = message.metadata.num_delivered >= MAX_DELIVER and not isinstance(error, Unavailable)
    if spent or isinstance(error, Invalid | Conflict):
        log.error("%s: %s goes to the dead letters: %s", consumer, message.subject, error)
        await bury(link, message, error, consumer)
        await message.term()
        return
    delay = EARLY_DELAY if isinstance(error, NotFound) else RETRY_DELAY
    log.warning(
        "%s: %s comes again in %s s: %s", consumer, message.subject, delay, error, exc_info=not _known(error)
    )
    await message.nak(delay=delay)


def _known(error: Exception) -> bool:
    return isinstance(error, NotFound | Unavailable)


async def bury(link: Link, message: Msg, error: Exception, consumer: str) -> None:
    """Copy a message to the dead letters, with its reason, before it is given up."""
    sequence = message.metadata.sequence.stream
    headers = {
        **(message.headers or {}),
        "periplus-consumer": consumer,
        "periplus-sequence": str(sequence),
        "periplus-reason": json.dumps(f"{type(error).__name__}: {error}"[:1000]),
        "Nats-Msg-Id": f"{consumer}/{sequence}",
    }
    await link.publish_events([CloudEvent(f"{DEAD}.{consumer}", headers, message.data)])
