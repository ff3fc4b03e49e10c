"""Events in: records the steps and the ends of runs that the dispatcher reports. Declares the events that the outbox publishes."""

from periplus.cache.v1.events_pb2 import ArtifactsDigested, EntryDiverged, EntryInvalidated, EntryRecorded
from periplus.dispatcher.v1.events_pb2 import RunFinished, StepFinished
from periplus_cache.record.finished import FinishedStep
from periplus_cache.service import Cache
from periplus_cache.wire.steps import decode_finished
from periplus_common.bus import Batch, Broker, Event
from periplus_common.errors import Invalid

MAX_IN_FLIGHT = 8  # batches: reading a large artifact takes long and occupies its batch


def subscribe(broker: Broker, cache: Cache, *, max_in_flight: int = MAX_IN_FLIGHT) -> None:
    """Register the consumer of StepFinished and RunFinished events."""

    @broker.batches("DISPATCHER", "cache", batch=128, max_in_flight=max_in_flight)
    async def on_finished(batch: Batch[StepFinished | RunFinished]) -> None:
        """Record finished steps: their attempts, content digests, entries and hits. End the leases of finished runs."""
        steps: list[tuple[Event[StepFinished | RunFinished], FinishedStep]] = []
        runs: list[RunFinished] = []
        for event in batch:
            if isinstance(event.data, RunFinished):
                runs.append(event.data)
                continue
            try:
                steps.append((event, decode_finished(event.data, event.headers)))
            except Invalid as error:
                batch.refuse(event, error)
        refused = await cache.record(*(step for _, step in steps))
        for (event, _), reason in zip(steps, refused, strict=True):
            if reason is not None:
                batch.refuse(event, reason)
        for run in runs:
            await cache.end_run(run.project, run.run)

    broker.publishes(EntryRecorded, EntryDiverged, EntryInvalidated, ArtifactsDigested)
