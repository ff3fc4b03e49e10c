"""Events in: records the steps that the dispatcher reports as finished. Declares the events that the outbox publishes."""

from periplus.cache.v1.events_pb2 import ArtifactsDigested, EntryDiverged, EntryInvalidated, EntryRecorded
from periplus.dispatcher.v1.events_pb2 import StepFinished
from periplus_cache.record.finished import FinishedStep
from periplus_cache.service import Cache
from periplus_cache.wire.steps import decode_finished
from periplus_common.bus import Batch, Broker, Event
from periplus_common.errors import Invalid

MAX_IN_FLIGHT = 8  # batches: reading a large artifact takes long and occupies its batch


def subscribe(broker: Broker, cache: Cache, *, max_in_flight: int = MAX_IN_FLIGHT) -> None:
    """Register the consumer of StepFinished events."""

    @broker.batches("DISPATCHER", "cache", batch=128, max_in_flight=max_in_flight)
    async def on_finished_steps(batch: Batch[StepFinished]) -> None:
        """Record finished steps: their attempts, content digests, entries and hits."""
        steps: list[tuple[Event[StepFinished], FinishedStep]] = []
        for event in batch:
            try:
                steps.append((event, decode_finished(event.data, event.headers)))
            except Invalid as error:
                batch.refuse(event, error)
        refused = await cache.record(*(step for _, step in steps))
        for (event, _), reason in zip(steps, refused, strict=True):
            if reason is not None:
                batch.refuse(event, reason)

    broker.publishes(EntryRecorded, EntryDiverged, EntryInvalidated, ArtifactsDigested)
