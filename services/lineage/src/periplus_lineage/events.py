"""Events in: each batch becomes one transaction, and an event that can not be stored is refused by itself."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from periplus.cache.v1.events_pb2 import ArtifactsDigested
from periplus.dispatcher.v1.events_pb2 import (
    RunFinished,
    RunSubmitted,
    StepDelayed,
    StepFinished,
    StepStarted,
)
from periplus.snapshotter.v1.events_pb2 import SnapshotTaken
from periplus_common import telemetry
from periplus_common.bus import Batch, Broker
from periplus_common.errors import Invalid
from periplus_lineage.projection import ProjectionDelta
from periplus_lineage.wire.events import EventProjector

_events = telemetry.counter(
    "periplus.lineage.events",
    unit="{event}",
    description="Events by outcome: stored, or refused because they can not be.",
    attributes=("periplus.outcome",),
)

Apply = Callable[[ProjectionDelta], Awaitable[None]]


def subscribe(
    broker: Broker, projector: EventProjector, apply: Apply, *, batch_size: int = 512, max_in_flight: int = 2
) -> None:
    """Register a durable consumer for each stream."""

    async def project(batch: Batch[Any]) -> None:
        delta = ProjectionDelta()
        refused = 0
        for event in batch:
            try:
                projector.add(event.data, delta)
            except Invalid as error:
                batch.refuse(event, error)
                refused += 1
        await apply(delta)
        _events.add(len(batch) - refused, {"periplus.outcome": "stored"})
        _events.add(refused, {"periplus.outcome": "refused"})

    # `EventProjector` checks what the tables need. The rules of the protos would take a tenth of the time of an event, and
    # one that broke a rule would be missing here although its publisher took it.
    consumer = partial(broker.batches, batch=batch_size, max_in_flight=max_in_flight, check_rules=False)

    @consumer("DISPATCHER", "lineage-dispatcher")
    async def on_runs_and_steps(
        batch: Batch[RunSubmitted | RunFinished | StepDelayed | StepStarted | StepFinished],
    ) -> None:
        """Store runs and steps, the artifacts that they read and wrote, and what they depend on."""
        await project(batch)

    @consumer("CACHE", "lineage-cache")
    async def on_artifacts(batch: Batch[ArtifactsDigested]) -> None:
        """Store digests and sizes of artifacts."""
        await project(batch)

    @consumer("SNAPSHOTTER", "lineage-snapshotter")
    async def on_snapshots(batch: Batch[SnapshotTaken]) -> None:
        """Store environment and commit of snapshots."""
        await project(batch)
