"""Events in, domain out. No decisions are taken here."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from faststream.nats import NatsBroker
from nats.errors import Error as NatsError

from periplus.dispatcher.v1.events_pb2 import StepFinished
from periplus_cache import wire
from periplus_cache.service import Cache
from periplus_common import broker as consumers
from periplus_common.bus import Link
from periplus_common.rpc import validate
from periplus_common.runtime import beside

log = logging.getLogger(__name__)

STREAM = "DISPATCHER"
CONSUMER = "cache"
PATIENCE = 15.0  # seconds for messages in hand, out of the 20 that a service has to end


def subscribe(broker: NatsBroker, cache: Cache) -> None:
    """Have each finished step recorded."""

    async def record(event: StepFinished) -> None:
        validate(event)
        await cache.record(wire.finished(event))

    consumers.subscribe(broker, STREAM, StepFinished, CONSUMER, record)


@asynccontextmanager
async def consuming(url: str, link: Link, cache: Cache) -> AsyncIterator[None]:
    """Record for as long as the block is open; as soon as NATS and the stream are there, which may be later."""
    stop = asyncio.Event()
    async with beside(_consume(url, link, cache, stop), patience=PATIENCE):
        try:
            yield
        finally:
            stop.set()


async def _consume(url: str, link: Link, cache: Cache, stop: asyncio.Event) -> None:
    waits = [asyncio.ensure_future(wait) for wait in (link.client(), stop.wait())]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()
    while not stop.is_set():
        broker = consumers.new_broker(url, link)
        subscribe(broker, cache)
        try:
            async with consumers.consuming(broker):
                await stop.wait()
        except (NatsError, TimeoutError, OSError) as error:
            log.warning("recording waits for the stream %s: %s", STREAM, error)
            await asyncio.sleep(0.5)
