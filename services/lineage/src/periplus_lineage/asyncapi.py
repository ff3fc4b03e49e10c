"""Lineage's AsyncAPI document: `make asyncapi` writes docs/asyncapi/lineage.json."""

from typing import Any, cast

from faststream import FastStream
from google.protobuf.timestamp_pb2 import Timestamp

from periplus.cache.v1.events_pb2 import ArtifactsDigested
from periplus.dispatcher.v1.events_pb2 import (
    RunFinished,
    RunSubmitted,
    StepDelayed,
    StepFinished,
    StepNode,
    StepStarted,
)
from periplus.snapshotter.v1.events_pb2 import SnapshotTaken
from periplus.types.v1 import step_pb2
from periplus_common.bus import Broker, asyncapi
from periplus_lineage import events

_AT = Timestamp(seconds=1_800_000_000)
_MODEL = step_pb2.Artifact(
    name="model",
    object=step_pb2.ObjectRef(key="train-x7k2p/train-x7k2p-train-1234567890/model.tgz"),
    digest="sha256:" + "2c" * 32,
    size_bytes=2048,
)
_EXAMPLES = (
    RunSubmitted(
        project="digits",
        run="train-x7k2p",
        pipeline="train-",
        parameters=[step_pb2.Parameter(name="noise", value="0.2")],
        steps=[StepNode(path="main.ingest", template="ingest", verdict=step_pb2.VERDICT_HIT)],
        submitted_at=_AT,
    ),
    RunFinished(
        project="digits",
        run="train-x7k2p",
        phase=step_pb2.RUN_PHASE_SUCCEEDED,
        pipeline="train-",
        submitted_at=_AT,
        finished_at=_AT,
        cached_steps=1,
        finished_steps=5,
    ),
    StepDelayed(
        project="digits",
        run="train-x7k2p",
        step="main.train(0)",
        template="train",
        node="train-x7k2p-1234567890",
        reason="Unschedulable: 0/3 nodes are available: 3 Insufficient memory.",
        observed_at=_AT,
    ),
    StepStarted(
        project="digits",
        run="train-x7k2p",
        step="main.train(0)",
        template="train",
        node="train-x7k2p-1234567890",
        started_at=_AT,
    ),
    StepFinished(
        project="digits",
        run="train-x7k2p",
        step="main.train(0)",
        template=step_pb2.StepTemplate(name="train", document='{"container": {"image": "train:1"}}'),
        phase=step_pb2.STEP_PHASE_SUCCEEDED,
        started_at=_AT,
        finished_at=_AT,
        attempts=1,
    ),
    ArtifactsDigested(project="digits", run="train-x7k2p", step="main.train(0)", outputs=[_MODEL]),
    SnapshotTaken(
        project="digits",
        snapshot="sha256:" + "3d" * 32,
        environment="sha256:" + "4e" * 32,
        commit="5f" * 20,
        taken_at=_AT,
    ),
)


def application() -> FastStream:
    """The handlers as a FastStream application. It is documented and not run."""
    broker = Broker("nats://localhost:4222")
    events.subscribe(broker, projector=cast("Any", None), apply=cast("Any", None))
    description = (
        "Stores the events of the other services as runs, steps and the graph of artifacts. Publishes none."
    )
    return asyncapi.application(broker, title="lineage", description=description, examples=_EXAMPLES)
