"""The FastStream middleware that acknowledges, delays or refuses each message of a batch."""

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from copy import copy
from typing import Any

from faststream import BaseMiddleware
from faststream.exceptions import IgnoredException
from faststream.nats.message import NatsBatchMessage
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from periplus_common import telemetry
from periplus_common.bus.events import Batch
from periplus_common.bus.settings import BusSettings
from periplus_common.errors import Conflict, Invalid, NotFound, Unavailable

log = logging.getLogger(__name__)

DEAD_LETTER_STREAM = "DEAD"
DEAD_LETTER_SUBJECT = "periplus-dead"
_MAX_REASON_CHARACTERS = 1000

_CONSUMER_ATTRIBUTES = ("messaging.system", "messaging.destination.name", "messaging.consumer.group.name")
_process_duration = telemetry.histogram(
    "messaging.process.duration",
    unit="s",
    description="Duration of each call of a durable consumer's handler, with a batch of its stream's events.",
    attributes=(*_CONSUMER_ATTRIBUTES, "error.type"),
)
_consumed_messages = telemetry.counter(
    "messaging.client.consumed.messages",
    unit="{message}",
    description="Messages by what became of them: acknowledged, redelivered (later) or dead_letter.",
    attributes=(*_CONSUMER_ATTRIBUTES, "periplus.outcome"),
)

Next = Callable[[Any], Awaitable[Any]]
PublishDeadLetter = Callable[[str, bytes, dict[str, str]], Awaitable[object]]
"""Stores a dead letter, by subject, body and headers. Raises nats errors, `TimeoutError`."""


class Delivery(BaseMiddleware[Any]):
    """Acknowledges what was handled. The rest is redelivered later, or becomes a dead letter with its reason.

    A handler may refuse events of its batch. When it raises, the batch is handled again one by one; while it raises
    `Unavailable`, the batch waits, and that uses up no delivery.
    """

    def __init__(
        self,
        msg: Any,
        /,
        *,
        context: Any,
        settings: BusSettings,
        publish_dead_letter: PublishDeadLetter,
        stopping: asyncio.Event,
    ) -> None:
        super().__init__(msg, context=context)
        self._settings = settings
        self._publish_dead_letter = publish_dead_letter
        self._stopping = stopping

    async def consume_scope(self, call_next: Next, msg: Any) -> Any:
        """Called by FastStream around each handler."""
        if not isinstance(msg, NatsBatchMessage):
            return await call_next(msg)  # request and reply
        if not msg.raw_message[0].reply:
            return await _in_memory(call_next, msg)
        try:
            await self._deliver(call_next, msg)
        except (NatsError, TimeoutError, Unavailable) as error:
            # Neither acknowledged nor refused: the server redelivers the batch.
            log.warning("%d messages will be redelivered: %r", len(msg.raw_message), error)
        return None

    async def _deliver(self, call_next: Next, msg: NatsBatchMessage) -> None:
        messages = msg.raw_message
        batch: Any = await msg.decode()
        if len(batch) + len(batch.refusals) != len(messages):
            raise RuntimeError(
                "FastStream decoded another batch than this one; nothing of it is acknowledged"
            )
        try:
            await self._handle(call_next, msg, batch)
        except IgnoredException:
            raise
        except _StoppingError:
            for message in messages:
                await message.nak()
            _count(messages[0], "redelivered", len(messages))
            return
        except Exception as error:  # noqa: BLE001 - the boundary: every failure becomes an ack, a nak or a dead letter
            if len(messages) == 1:
                await self._fail(messages[0], error)
                return
            for message in messages:
                await self._deliver(call_next, _single(msg, message))
            return
        for position, message in enumerate(messages):
            if refusal := batch.refusals.get(position):
                await self._fail(message, refusal)
            else:
                await message.ack()
        _count(messages[0], "acknowledged", len(messages) - len(batch.refusals))

    async def _handle(self, call_next: Next, msg: NatsBatchMessage, batch: Batch[Any]) -> None:
        """Call the handler until it does not raise `Unavailable`. Without a decodable event there is nothing to call."""
        async with _extending_ack_wait(msg.raw_message, self._settings.ack_wait.total_seconds()):
            while batch:
                try:
                    with _timed(msg.raw_message[0]):
                        await call_next(msg)
                except Unavailable as error:
                    if self._stopping.is_set():
                        raise _StoppingError from error
                    log.warning("%d messages wait: %s", len(batch), error)
                    with suppress(TimeoutError):
                        pause = self._settings.unavailable_pause.total_seconds()
                        async with asyncio.timeout(pause):
                            await self._stopping.wait()
                else:
                    return

    async def _fail(self, message: Msg, error: Exception) -> None:
        """Dead letter at once, or redelivery after a delay. `Unavailable` never uses up the deliveries."""
        headers = message.headers or {}
        project, _, run = headers.get("ce-subject", "").partition("/")
        with telemetry.remote_context(headers), telemetry.log_context(project=project, run=run):
            exhausted = message.metadata.num_delivered >= self._settings.max_deliveries
            if isinstance(error, Invalid | Conflict) or (exhausted and not isinstance(error, Unavailable)):
                log.error(
                    "%s becomes a dead letter of %s: %s", message.subject, message.metadata.consumer, error
                )
                await self._dead_letter(message, error)
                await message.term()
                _count(message, "dead_letter", 1)
                return
            early = isinstance(error, NotFound)
            delay = (
                self._settings.early_retry_delay if early else self._settings.retry_delay
            ).total_seconds()
            expected = early or isinstance(error, Unavailable)
            log.warning(
                "%s will be redelivered in %s s: %r", message.subject, delay, error,
                exc_info=None if expected else error,
            )  # fmt: skip
            await message.nak(delay=delay)
            _count(message, "redelivered", 1)

    async def _dead_letter(self, message: Msg, error: Exception) -> None:
        metadata = message.metadata
        headers = {
            **(message.headers or {}),
            "periplus-consumer": metadata.consumer,
            "periplus-sequence": str(metadata.sequence.stream),
            "periplus-reason": json.dumps(f"{type(error).__name__}: {error}"[:_MAX_REASON_CHARACTERS]),
            "Nats-Msg-Id": f"{metadata.consumer}/{metadata.sequence.stream}",
        }
        await self._publish_dead_letter(f"{DEAD_LETTER_SUBJECT}.{metadata.consumer}", message.data, headers)


def consumer_attributes(stream: str, durable: str) -> dict[str, str]:
    """The attributes of a durable consumer's metrics."""
    return dict(zip(_CONSUMER_ATTRIBUTES, ("nats", stream, durable), strict=True))


def _count(message: Msg, outcome: str, count: int) -> None:
    attributes = consumer_attributes(message.metadata.stream, message.metadata.consumer)
    _consumed_messages.add(count, {**attributes, "periplus.outcome": outcome})


@contextmanager
def _timed(message: Msg) -> Iterator[None]:
    attributes = consumer_attributes(message.metadata.stream, message.metadata.consumer)
    started = time.perf_counter()
    try:
        yield
    except Exception as error:
        attributes["error.type"] = type(error).__name__
        raise
    finally:
        _process_duration.record(time.perf_counter() - started, attributes)


class _StoppingError(Exception):
    """The broker stops, and the handler's dependency is still unavailable."""


async def _in_memory(call_next: Next, msg: NatsBatchMessage) -> Any:
    """With `TestNatsBroker` there is no server to refuse to: the publisher gets the error."""
    batch: Any = await msg.decode()
    result = await call_next(msg) if batch else None
    for refusal in batch.refusals.values():
        raise refusal
    return result


def _single(msg: NatsBatchMessage, message: Msg) -> NatsBatchMessage:
    one = copy(msg)
    one.raw_message, one.body, one.batch_headers = [message], [message.data], [message.headers or {}]
    one.clear_cache()  # FastStream 0.7.0 to 0.7.4 share the decoded body between copies
    return one


@asynccontextmanager
async def _extending_ack_wait(messages: list[Msg], ack_wait: float) -> AsyncIterator[None]:
    """Keep JetStream from redelivering messages that are being handled."""

    async def extend() -> None:
        while True:
            await asyncio.sleep(ack_wait / 3)
            with suppress(NatsError):  # without a connection the server redelivers them, to whoever is there
                for message in messages:
                    await message.in_progress()

    extending = asyncio.create_task(extend())
    try:
        yield
    finally:
        extending.cancel()
