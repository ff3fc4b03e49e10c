"""FastStream on JetStream pull consumers: for handlers that take one message at a time."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from faststream import AckPolicy, BaseMiddleware
from faststream.exceptions import IgnoredException
from faststream.message import StreamMessage
from faststream.nats import JStream, NatsBroker, PullSub
from faststream.nats.subscriber.usecases import stream_pull_subscriber
from google.protobuf.message import DecodeError, Message
from nats.aio.msg import Msg
from nats.js.api import AckPolicy as JetStreamAck
from nats.js.api import ConsumerConfig
from opentelemetry.trace import SpanKind

from periplus_common import bus, telemetry
from periplus_common.errors import Invalid

log = logging.getLogger(__name__)

# FastStream knows only the NATS client's own TimeoutError as "nothing there now"; the client raises Python's, too,
# and each of these would end the loop that fetches, to be started again with an error in the log.
stream_pull_subscriber.TimeoutError = TimeoutError  # type: ignore[attr-defined, assignment]

M = TypeVar("M", bound=Message)

Handler = Callable[[M], Awaitable[None]]


def fate(link: bus.Link) -> type[BaseMiddleware[Any, Any]]:
    """The middleware that continues the trace, acknowledges what was handled, and decides what failed."""

    class Fate(BaseMiddleware[Any, Any]):
        async def consume_scope(
            self, call_next: Callable[[Any], Awaitable[Any]], msg: StreamMessage[Any]
        ) -> Any:
            raw: Msg = msg.raw_message
            name = raw.metadata.consumer
            with telemetry.continuing(f"consume {raw.subject}", raw.headers or {}, SpanKind.CONSUMER):
                try:
                    async with _in_hand(raw):
                        result = await call_next(msg)
                except IgnoredException:
                    raise
                except Exception as error:  # noqa: BLE001 - the boundary: every failure gets its fate
                    await bus.fail(link, raw, error, name)
                    return None
                await raw.ack()
                return result

    return Fate


@asynccontextmanager
async def _in_hand(message: Msg) -> AsyncIterator[None]:
    """Tell the server now and then that a message is worked on, so that a slow handler's is not sent again."""

    async def tell() -> None:
        while True:
            await asyncio.sleep(bus.ACK_WAIT / 3)
            await message.in_progress()

    telling = asyncio.create_task(tell())
    try:
        yield
    finally:
        telling.cancel()


def new_broker(url: str, link: bus.Link) -> NatsBroker:
    """A broker that acknowledges by our own rules, and never gives up to reconnect."""
    return NatsBroker(
        url,
        ack_policy=AckPolicy.MANUAL,
        apply_types=False,
        graceful_timeout=20,
        max_reconnect_attempts=-1,
        reconnect_time_wait=1,
        ping_interval=10,
        middlewares=[fate(link)],
        logger=log,  # not FastStream's own, which writes in colours
        log_level=logging.DEBUG,
    )


def subscribe(
    broker: NatsBroker, stream: str, kind: type[M], consumer: str, handle: Handler[M], *, batch: int = 32
) -> None:
    """Have `handle` called with each event of a kind, up to `batch` of them side by side."""
    subject = f"{kind.DESCRIPTOR.full_name}.*.*"

    async def decoded(body: M) -> None:
        await handle(body)

    broker.subscriber(
        subject,
        stream=JStream(stream, declare=False),
        durable=consumer,
        pull_sub=PullSub(batch, timeout=5.0),
        decoder=decoder(kind),
        config=ConsumerConfig(
            durable_name=consumer,
            filter_subject=subject,
            ack_policy=JetStreamAck.EXPLICIT,
            ack_wait=bus.ACK_WAIT,
            max_deliver=-1,  # the last failure is ours to bury; the server would just fall silent
            max_ack_pending=1000,
        ),
    )(decoded)


def decoder(kind: type[M]) -> Callable[[StreamMessage[Any]], Awaitable[M]]:
    """How a body becomes a message of this kind."""

    async def decode(message: StreamMessage[Any]) -> M:
        try:
            return kind.FromString(message.body)
        except DecodeError as error:
            raise Invalid(f"not a {kind.DESCRIPTOR.full_name}") from error

    return decode


@asynccontextmanager
async def consuming(broker: NatsBroker) -> AsyncIterator[None]:
    """Consume until the block is left, then let messages in hand finish."""
    try:
        await broker.start()
        yield
    finally:
        await broker.stop()
