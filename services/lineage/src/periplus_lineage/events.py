"""Events in, facts out: a batch becomes one transaction, and what can not be read is refused by itself."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager

from nats.aio.msg import Msg

from periplus_common import bus, pull, telemetry
from periplus_common.errors import Invalid
from periplus_lineage.domain.fact import Facts
from periplus_lineage.wire.event import Reader, kinds

_handled = telemetry.meter.create_counter("lineage.events", unit="1")

Keep = Callable[[Facts], Awaitable[None]]


def consumers(batch: int, flights: int) -> Iterator[pull.Consumer]:
    """One for each stream that tells something here, of its events that do."""
    subjects: dict[str, list[str]] = {}
    for kind in kinds():
        name = kind.DESCRIPTOR.full_name
        subjects.setdefault(name.split(".")[1], []).append(f"{name}.>")
    for publisher, wanted in subjects.items():
        yield pull.Consumer(
            publisher.upper(), f"lineage-{publisher}", tuple(wanted), batch=batch, flights=flights
        )


def handler(reader: Reader, keep: Keep) -> pull.Handle:
    """What is done with a batch."""

    async def handle(batch: list[Msg]) -> pull.Refusals:
        facts = Facts()
        refused: pull.Refusals = []
        with telemetry.tracer.start_as_current_span("lineage.keep") as span:
            for message in batch:
                try:
                    # "<kind>.<project>.<run>"; neither of the last two holds a dot.
                    reader.read(message.subject.rsplit(".", 2)[0], message.data, facts)
                except Invalid as error:
                    refused.append((message, error))
            await keep(facts)
            span.set_attribute("events", len(batch))
        _handled.add(len(batch) - len(refused), {"fate": "kept"})
        _handled.add(len(refused), {"fate": "refused"})
        return refused

    return handle


@asynccontextmanager
async def consuming(
    link: bus.Link, reader: Reader, keep: Keep, batch: int, flights: int
) -> AsyncIterator[None]:
    """Consume every stream for as long as the block is open."""
    async with AsyncExitStack() as stack:
        for consumer in consumers(batch, flights):
            await stack.enter_async_context(pull.consuming(link, consumer, handler(reader, keep)))
        yield
