"""Consumes StepFinished events of the dispatcher."""

from contextlib import AbstractAsyncContextManager

from google.protobuf.message import DecodeError
from nats.aio.msg import Msg

from periplus.dispatcher.v1.events_pb2 import StepFinished
from periplus_cache.record.finished import FinishedStep
from periplus_cache.service import Cache
from periplus_cache.wire.steps import decode_finished
from periplus_common import pull
from periplus_common.bus import Link
from periplus_common.errors import Invalid
from periplus_common.rpc import validate

CONSUMER = pull.Consumer(
    "DISPATCHER",
    "cache",
    (f"{StepFinished.DESCRIPTOR.full_name}.>",),
    batch=128,
    flights=8,  # a large artifact takes long to read, and keeps its batch
)


def consuming(link: Link, cache: Cache) -> AbstractAsyncContextManager[None]:
    """Record each finished step for as long as the block is open; as soon as NATS is there, which may be later."""

    async def handle(batch: list[Msg]) -> pull.Refusals:
        refused: pull.Refusals = []
        steps: list[tuple[Msg, FinishedStep]] = []
        for message in batch:
            try:
                steps.append((message, _read(message)))
            except Invalid as error:
                refused.append((message, error))
        problems = await cache.record(*(step for _, step in steps))
        found = zip(steps, problems, strict=True)
        return refused + [(message, problem) for (message, _), problem in found if problem is not None]

    return pull.consuming(link, CONSUMER, handle)


def _read(message: Msg) -> FinishedStep:
    try:
        event = StepFinished.FromString(message.data)
    except DecodeError as error:
        raise Invalid(f"not a {StepFinished.DESCRIPTOR.full_name}") from error
    validate(event)
    return decode_finished(event, message.headers or {})
