"""JetStream as FastStream's batch subscriber uses it: `fetch` returns what is there, and never waits to fill a batch.

FastStream asks the broker's JetStream context to `pull_subscribe`, and then calls `fetch` in a loop: first for a whole
batch, then for the rest of it until that raises nats-py's `TimeoutError`. So a call for a whole batch waits here, and a
call for a rest does not. All readers of one durable consumer share an inbox, and one request asks for many messages:
nats-py's own `fetch` makes a task and a timer for each message.

A consumer of several event types gets its publisher's whole stream, and what it does not take is acknowledged here: the
server spends 100 µs a message on a filter of several subjects, and 8 µs on one that is the stream's own
(nats-server 2.15, `bench/lineage_ingest.py`).
"""

import asyncio
import json
import logging
from contextlib import suppress

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.errors import TimeoutError as NoMessagesError
from nats.js import JetStreamContext
from nats.js.api import ConsumerConfig, PubAck

from periplus_common.bus.settings import BusSettings

log = logging.getLogger(__name__)

_MARGIN_SECONDS = 0.5
"""A request counts as lost so long after it should have expired at the server."""
_ERROR_PAUSE_SECONDS = 0.2
"""Before the next request when the server answered one with an error."""
_DECLARE_PAUSE_SECONDS = 0.5


class JetStream(JetStreamContext):
    """nats-py's context, whose pull subscriptions return the messages that are there."""

    def __init__(self, client: Client, settings: BusSettings) -> None:
        super().__init__(client, timeout=settings.publish_timeout.total_seconds())
        self._client = client
        self._settings = settings
        self._inboxes: dict[tuple[str, str], Inbox] = {}

    async def pull_subscribe(  # type: ignore[override]
        self,
        subject: str,  # noqa: ARG002 - the consumer's own filter says which
        durable: str,
        stream: str,
        config: ConsumerConfig,
        **_: object,
    ) -> "Pull":
        """Needs no server: the consumer is declared before the first request, and again after it was lost."""
        inbox = self._inboxes.get((stream, durable))
        if inbox is None:
            inbox = self._inboxes[stream, durable] = Inbox(
                self._client, self, stream, config, self._settings.pull_expiry.total_seconds()
            )
            await inbox.open()
        return Pull(inbox)

    async def publish(  # type: ignore[override]
        self,
        subject: str,
        payload: bytes = b"",
        timeout: float | None = None,  # noqa: ASYNC109 - nats-py's signature
        stream: str | None = None,  # noqa: ARG002
        headers: dict[str, str] | None = None,
    ) -> PubAck:
        """Without the header that names the expected stream: parsing headers is a quarter of what a consumer costs."""
        return await super().publish(subject, payload, timeout=timeout, headers=headers)

    async def close(self) -> None:
        """Receive no more, and return to the server what no handler has."""
        for inbox in self._inboxes.values():
            await inbox.close()

    def reconnected(self) -> None:
        """Request again: what was requested from the old server process is lost."""
        for inbox in self._inboxes.values():
            inbox.request_again()


class Pull:
    """A reader of an inbox: the part of nats-py's `PullSubscription` that FastStream uses."""

    def __init__(self, inbox: "Inbox") -> None:
        self._inbox = inbox
        inbox.readers += 1

    async def fetch(self, batch: int, timeout: float | None = None) -> list[Msg]:  # noqa: ARG002, ASYNC109 - FastStream's call
        """Up to `batch` messages, one at least. Raises nats-py's `TimeoutError` when asked for a rest that is not there."""
        inbox = self._inbox
        if batch < inbox.batch and not inbox.received:
            raise NoMessagesError
        inbox.batch = max(inbox.batch, batch)
        return await inbox.take(batch)

    async def unsubscribe(self) -> None:
        """The last reader closes the inbox."""
        self._inbox.readers -= 1
        if not self._inbox.readers:
            await self._inbox.close()


class Inbox:
    """The messages received for a durable consumer that no reader took yet, and how many more were requested."""

    def __init__(
        self, client: Client, jetstream: JetStreamContext, stream: str, config: ConsumerConfig, expiry: float
    ) -> None:
        self.received: list[Msg] = []
        self.batch = 0  # messages a request asks for; 0 until a reader fetches
        self.readers = 0
        self._client, self._jetstream, self._stream = client, jetstream, stream
        self._config, self._types = _with_one_filter(config)
        self._expiry = expiry  # seconds
        self._subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{config.durable_name}"
        self._reply = client.new_inbox()
        self._arrived, self._request_due = asyncio.Event(), asyncio.Event()
        self._requested = 0
        self._pause = 0.0  # seconds
        self._undeclared = True
        self._closed = False

    async def open(self) -> None:
        """Subscribe to the replies. Nothing arrives before it is requested."""
        self._subscription = await self._client.subscribe(
            self._reply, cb=self._receive, pending_msgs_limit=-1, pending_bytes_limit=-1
        )
        self._tasks = [asyncio.create_task(work) for work in (self._request(), self._extend())]

    async def close(self) -> None:
        """Return to the server what no reader took, so that another process gets it at once."""
        if self._closed:
            return
        self._closed = True
        for task in self._tasks:
            task.cancel()
        with suppress(NatsError, TimeoutError):
            await self._subscription.drain()  # type: ignore[no-untyped-call] # unsubscribing drops what is on its way
            while self.received:
                await self.received.pop().nak()

    def request_again(self) -> None:
        """Forget open requests, and declare the consumer again: the server may have lost both."""
        self._requested, self._undeclared = 0, True
        self._request_due.set()

    async def take(self, limit: int) -> list[Msg]:
        """Up to `limit` messages; waits for the first. The next are requested meanwhile."""
        while not self.received:
            self._request_due.set()
            self._arrived.clear()
            await self._arrived.wait()
        batch, self.received = self.received[:limit], self.received[limit:]
        if self._requested < self.batch // 2:
            self._request_due.set()
        return batch

    async def _receive(self, message: Msg) -> None:
        status = message.headers.get("Status") if message.headers and not message.data else None
        if status is None:
            self._requested -= 1
            if message.subject.startswith(self._types):
                self.received.append(message)
                self._arrived.set()
                return
            with suppress(NatsError):  # without a connection the server sends it again
                await message.ack()
            if self._requested < self.batch // 2:
                self._request_due.set()
        else:  # 404, 408, 409, 503: this request is over
            self._requested = 0
            self._pause = 0.0 if status in ("404", "408") else _ERROR_PAUSE_SECONDS
            # Nobody answers, or the consumer was deleted: perhaps the server lost its store.
            self._undeclared = status in ("409", "503")
            self._request_due.set()

    async def _request(self) -> None:
        expires = {"expires": int(self._expiry * 1e9)}  # nanoseconds
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._expiry + _MARGIN_SECONDS):
                    await self._request_due.wait()
            lost = not self._request_due.is_set()
            self._request_due.clear()
            enough = self._requested >= self.batch // 2 + 1 and not lost
            if not self.batch or len(self.received) >= self.batch or enough:
                continue
            await asyncio.sleep(self._pause)
            if self._undeclared:
                await self._declare()
            self._requested = (0 if lost else max(self._requested, 0)) + self.batch
            body = json.dumps({"batch": self.batch, **expires}).encode()
            with suppress(NatsError):  # the time-out above requests again
                await self._client.publish(self._subject, body, reply=self._reply)

    async def _declare(self) -> None:
        """Create the durable consumer or change it to its configuration; retries until its stream answers."""
        while True:
            self._undeclared = False
            try:
                await self._jetstream.add_consumer(self._stream, self._config)
            except (NatsError, TimeoutError) as error:
                log.warning(
                    "consumer %s cannot be declared on stream %s: %r",
                    self._config.durable_name,
                    self._stream,
                    error,
                )
                await asyncio.sleep(_DECLARE_PAUSE_SECONDS)
            else:
                return

    async def _extend(self) -> None:
        """Keep JetStream from redelivering messages that wait here for a busy handler."""
        assert self._config.ack_wait
        while True:
            await asyncio.sleep(self._config.ack_wait / 3)
            with suppress(NatsError):
                for message in list(self.received):
                    await message.in_progress()


def _with_one_filter(config: ConsumerConfig) -> tuple[ConsumerConfig, tuple[str, ...]]:
    """The consumer with a filter that the server is fast at, and how the subjects begin that it takes.

    Its own filters are `<event type>.*.*`, and a publisher's stream is `periplus.<publisher>.>`.
    """
    subjects = config.filter_subjects or []
    if len(subjects) > 1:
        publishers = {".".join(subject.split(".", 2)[:2]) for subject in subjects}
        config = config.evolve(filter_subjects=[f"{publisher}.>" for publisher in sorted(publishers)])
    return config, tuple(subject.removesuffix("*.*") for subject in subjects)
