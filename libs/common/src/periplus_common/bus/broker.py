"""A service's one connection to NATS: FastStream's broker, which never gives up reconnecting."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

from faststream import AckPolicy
from faststream.nats import JStream, NatsBroker, PullSub
from google.protobuf.message import Message
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js.api import AckPolicy as JetStreamAckPolicy
from nats.js.api import ConsumerConfig

from periplus_common import telemetry, tls
from periplus_common.bus.delivery import DEAD_LETTER_STREAM, Delivery, consumer_attributes
from periplus_common.bus.events import CloudEvent, Codec, event_types
from periplus_common.bus.pull import JetStream
from periplus_common.bus.settings import BusSettings
from periplus_common.bus.tls_transport import TlsTransport
from periplus_common.errors import Unavailable
from periplus_common.runtime import background_task

log = logging.getLogger(__name__)

_RECONNECT_PAUSE_SECONDS = 0.5
_PING_INTERVAL_SECONDS = 10
_DRAIN_TIMEOUT_SECONDS = 5
_CHECK_INTERVAL_SECONDS = 1

_sent_messages = telemetry.counter(
    "messaging.client.sent.messages",
    unit="{message}",
    description="Events that were published to a stream; with error.type those that it did not store.",
    attributes=("messaging.system", "messaging.destination.name", "error.type"),
)
_pending = telemetry.gauge(
    "periplus.consumer.pending",
    unit="{message}",
    description="Messages that a durable consumer has not acknowledged yet, delivered or not.",
    attributes=("messaging.system", "messaging.destination.name", "messaging.consumer.group.name"),
)


class NotStored(Unavailable):
    """JetStream did not store some of the events. `stored` are the others: their index, and their sequence."""

    def __init__(self, message: str, stored: Mapping[int, int]) -> None:
        super().__init__(message)
        self.stored = stored


@dataclass(frozen=True)
class StreamState:
    """A stream as it is now."""

    created_at: datetime
    """Tells a stream from one of the same name that was lost."""
    last_sequence: int
    acknowledged_sequence: int
    """Every durable consumer has acknowledged all up to here; 0 without any."""


class Broker(NatsBroker):
    """Hands batches to handlers without waiting to fill them, publishes events, and reports a connection that is lost for good."""

    def __init__(self, url: str, *, ca_file: str = "", settings: BusSettings | None = None) -> None:
        self._settings = settings or BusSettings()
        self._url_without_password = url.rpartition("@")[2].rpartition("://")[2]
        self._tls = tls.context(ca_file) if tls.is_used(url, ca_file) else None
        self._client: Client | None = None
        self._jetstream: JetStream | None = None
        self._connected, self._closed, self._stopping = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._last_error = ""
        self._reconnect_callbacks: list[Callable[[], None]] = []
        self._further_subscribers: list[Callable[[], object]] = []
        self._consumers: list[tuple[str, str]] = []
        delivery = partial(
            Delivery,
            settings=self._settings,
            publish_dead_letter=self._publish_dead_letter,
            stopping=self._stopping,
        )
        middlewares: list[Any] = [delivery]
        if telemetry.enabled():
            from periplus_common.bus import tracing  # which imports OpenTelemetry's conventions

            middlewares.append(tracing.middleware())  # inside `delivery`: a span for each call of a handler
        # FastStream logs each error of the connection with a traceback; `_note_error` says the same in a line.
        faststream_log = log.getChild("faststream")
        faststream_log.setLevel(logging.ERROR)
        super().__init__(
            url,
            # Of its own, as the server lets a user read only its own inboxes.
            inbox_prefix=f"_INBOX_{user}" if (user := urlsplit(url).username) else "_INBOX",
            apply_types=False,
            ack_policy=AckPolicy.MANUAL,
            codec=Codec(),
            middlewares=middlewares,
            graceful_timeout=self._settings.graceful_timeout.total_seconds(),
            max_reconnect_attempts=-1,
            reconnect_time_wait=_RECONNECT_PAUSE_SECONDS,  # type: ignore[arg-type] # nats-py takes a float
            ping_interval=_PING_INTERVAL_SECONDS,
            drain_timeout=_DRAIN_TIMEOUT_SECONDS,
            error_cb=self._note_error,
            reconnected_cb=self._reconnected,
            closed_cb=self._note_closed,
            id_generator=str,  # no correlation id but the event's, see `_publish_event`
            logger=faststream_log,
            log_level=logging.DEBUG,
        )

    def batches(
        self,
        stream: str,
        durable: str,
        *,
        batch: int = 256,
        max_in_flight: int = 2,
        check_rules: bool = True,
    ) -> Callable[[Any], Any]:
        """Decorate a handler of `Batch[A]` or `Batch[A | B]`: a durable consumer of these events of a stream.

        It gets what is there, up to `batch` events, at most `max_in_flight` batches at the same time. It may get an
        event more than once, and in any order. `check_rules=False` is for a handler that checks what it needs: the
        rules of the protos take some 10 µs an event.
        """

        def register(handler: Any) -> Any:
            types = event_types(handler)
            self._consumers.append((stream, durable))

            def subscribe(title: str | None = None, *, include_in_schema: bool = True) -> Any:
                config = ConsumerConfig(
                    durable_name=durable,
                    filter_subjects=[f"{kind.DESCRIPTOR.full_name}.*.*" for kind in types],
                    ack_policy=JetStreamAckPolicy.EXPLICIT,
                    ack_wait=self._settings.ack_wait.total_seconds(),
                    max_deliver=-1,  # `Delivery` counts: the server would stop without a dead letter
                    max_ack_pending=batch * (max_in_flight + 2),
                )
                return self.subscriber(
                    stream=JStream(stream, declare=False),
                    durable=durable,
                    pull_sub=PullSub(batch, timeout=None, batch=True),
                    config=config,
                    codec=Codec(*types, check_rules=check_rules),
                    title=title,
                    include_in_schema=include_in_schema,
                )

            wrapped = subscribe(title=durable)(handler)
            # A batch subscriber of FastStream handles one batch at a time. The others are added when the broker
            # starts: neither the AsyncAPI document nor a test in memory should have the handler more than once.
            self._further_subscribers += [lambda: subscribe(include_in_schema=False)(wrapped)] * (
                max_in_flight - 1
            )
            return wrapped

        return register

    def publishes(self, *types: type[Message]) -> None:
        """Declare the events that this service publishes, for its AsyncAPI document."""
        for kind in types:
            name = kind.DESCRIPTOR.full_name
            self.publisher(f"{name}.{{project}}.{{run}}", title=kind.DESCRIPTOR.name, schema=dict)

    async def connect(self) -> Client:
        """Connect, however long that takes; a refused password is tried again, too."""
        while True:
            try:
                client = await super().connect()
            except NatsError as error:
                log.warning("NATS at %s refuses the connection: %s", self._url_without_password, str(error))
                await asyncio.sleep(_RECONNECT_PAUSE_SECONDS)
            else:
                break
        if isinstance(client, Client) and not self._connected.is_set():
            self._client, self._jetstream = client, JetStream(client, self._settings)
            config = self.config.broker_config
            config.connection_state.connect(client, self._jetstream)
            config.js_producer.connect(self._jetstream, serializer=None, codec=Codec())
        self._connected.set()  # also by TestNatsBroker, which has no client
        return client

    async def _connect(self) -> Client:
        client = Client()
        if self._tls:
            client._transport = TlsTransport(self._tls)  # noqa: SLF001 - it has no argument for this
        await client.connect(**self._connection_kwargs)
        self.config.connect(client)
        return client

    async def start(self) -> None:
        """Connect, and start every consumer. Their streams may be created later."""
        await self.connect()
        while self._further_subscribers:
            self._further_subscribers.pop()()
        await super().start()

    async def stop(
        self,
        exc_type: type[BaseException] | None = None,
        exc_val: BaseException | None = None,
        exc_tb: TracebackType | None = None,
    ) -> None:
        """Let running handlers end, return other messages to the server, flush, and disconnect."""
        self._stopping.set()
        # A connection that was lost can be neither drained nor closed without errors.
        lost = (NatsError, TimeoutError, OSError)
        with suppress(*lost):
            # First, or messages that handlers return to the server would be delivered to this process again.
            if self._jetstream:
                await self._jetstream.close()
        try:
            with suppress(*lost):
                await super().stop(exc_type, exc_val, exc_tb)
        finally:
            if self._client:
                with suppress(*lost):
                    await self._client.close()

    async def wait_closed(self) -> None:
        """Raise `Unavailable` once the client has given up for good; only a new process would connect again.

        nats-py reports that by its callback, or not at all: when a password is refused during a reconnect, FastStream raises in
        the callback that nats-py calls, and that ends nats-py's reconnecting silently.
        """
        client = self.connection
        while not self._closed.is_set() and (client.is_connected or client.is_reconnecting):
            with suppress(TimeoutError):
                async with asyncio.timeout(_CHECK_INTERVAL_SECONDS):
                    await self._closed.wait()
        reason = self._last_error or "no reason given"
        raise Unavailable(
            f"the connection to NATS at {self._url_without_password} is closed for good: {reason}"
        )

    def on_reconnect(self, callback: Callable[[], None]) -> None:
        """Have `callback` called whenever a lost connection was made again."""
        self._reconnect_callbacks.append(callback)

    async def publish_events(self, events: Sequence[CloudEvent]) -> list[int]:
        """Publish, and wait until JetStream has stored each: their sequences in the stream.

        Publishing again is harmless. Raises `NotStored`, which names those that were stored, and `Unavailable`
        without a connection.
        """
        await self._wait_connected()
        results = await asyncio.gather(*map(self._publish_event, events), return_exceptions=True)
        failed = {index: result for index, result in enumerate(results) if isinstance(result, BaseException)}
        for error in failed.values():
            if not isinstance(error, NatsError | TimeoutError):
                raise error
        stored = {
            index: ack.seq if ack else 0  # there is none with TestNatsBroker
            for index, ack in enumerate(results)
            if not isinstance(ack, BaseException)
        }
        if failed:
            index, error = next(iter(failed.items()))
            what = f"{len(failed)} of {len(events)} events, the first {events[index].subject}"
            # nats-py reports a denied publish as a time-out, and the reason to `_note_error`.
            raise NotStored(
                f"JetStream did not store {what}: {self._last_error or repr(error)}", stored
            ) from error
        return list(stored.values())

    async def _publish_event(self, event: CloudEvent) -> Any:
        attributes = {"messaging.system": "nats", "messaging.destination.name": event.stream}
        try:
            if self._jetstream and not telemetry.enabled():
                # FastStream's own publish takes half as long again, for its middlewares; only telemetry needs them.
                headers = dict(event.headers)
                if correlation_id := _correlation_id(headers):
                    headers["correlation_id"] = correlation_id
                return await self._jetstream.publish(event.subject, event.body, headers=headers)
            with telemetry.remote_context(event.headers):  # the trace that the event was created in
                return await self.publish(
                    event.body,
                    event.subject,
                    dict(event.headers),
                    correlation_id=_correlation_id(event.headers),
                    stream=event.stream,
                    timeout=self._settings.publish_timeout.total_seconds(),
                )
        except Exception as error:
            attributes["error.type"] = type(error).__name__
            raise
        finally:
            _sent_messages.add(1, attributes)

    async def stream_state(self, name: str) -> StreamState:
        """A stream as it is now. Raises `Unavailable`, also where there is no such stream."""
        client = await self._wait_connected()
        jetstream = client.jetstream(timeout=self._settings.publish_timeout.total_seconds())
        try:
            info = await jetstream.stream_info(name)
            consumers = await jetstream.consumers_info(name)
        except (NatsError, TimeoutError) as error:
            raise Unavailable(f"the stream {name} does not answer: {error!r}") from error
        assert info.created is not None
        floors = [c.ack_floor.stream_seq for c in consumers if c.config.durable_name and c.ack_floor]
        return StreamState(info.created, info.state.last_seq, min(floors, default=0))

    async def measure_pending(self) -> None:
        """Record what each durable consumer has pending, at an interval, until it is cancelled."""
        while True:
            for stream, durable in self._consumers:
                try:
                    info = await self.connection.jetstream().consumer_info(stream, durable)
                except (NatsError, TimeoutError) as error:
                    log.debug("consumer %s of %s does not answer: %r", durable, stream, error)
                else:
                    count = (info.num_pending or 0) + (info.num_ack_pending or 0)
                    _pending.set(count, consumer_attributes(stream, durable))
            await asyncio.sleep(self._settings.pending_interval.total_seconds())

    async def _wait_connected(self) -> Client:
        try:
            async with asyncio.timeout(self._settings.publish_timeout.total_seconds()):
                await self._connected.wait()
        except TimeoutError as error:
            reason = self._last_error or "no answer yet"
            raise Unavailable(f"NATS at {self._url_without_password} is unavailable: {reason}") from error
        return self.connection

    async def _publish_dead_letter(self, subject: str, body: bytes, headers: dict[str, str]) -> None:
        await self.publish(
            body,
            subject,
            headers,
            correlation_id=_correlation_id(headers),
            stream=DEAD_LETTER_STREAM,
            timeout=self._settings.publish_timeout.total_seconds(),
        )

    async def _note_error(self, error: Exception) -> None:
        self._last_error = str(error)
        log.warning("NATS: %s", self._last_error)

    async def _note_closed(self) -> None:
        self._closed.set()

    async def _reconnected(self) -> None:
        self._last_error = ""
        log.info("reconnected to NATS")
        if self._jetstream:
            self._jetstream.reconnected()
        for callback in self._reconnect_callbacks:
            callback()


def _correlation_id(headers: Mapping[str, str]) -> str | None:
    """By this header FastStream's telemetry links a batch to the traces of its events; an event without one needs none."""
    return headers.get("ce-id") if telemetry.enabled() or "traceparent" in headers else None


@asynccontextmanager
async def consuming(broker: Broker) -> AsyncIterator[None]:
    """Connect and consume in the background for as long as the block is open: NATS may start after the service.

    The block ends with `Unavailable` when the connection is closed for good. Leaving it waits for running handlers.
    """

    async def run() -> None:
        await broker.start()
        async with background_task(broker.measure_pending()) if telemetry.enabled() else nullcontext():
            await broker.wait_closed()

    try:
        async with background_task(run()):
            yield
    finally:
        await broker.stop()
