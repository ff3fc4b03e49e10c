"""The cache's AsyncAPI document: `make asyncapi` writes docs/asyncapi/cache.json."""

from typing import Any, cast

from faststream import FastStream
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from periplus.cache.v1.events_pb2 import ArtifactsDigested, EntryDiverged, EntryInvalidated, EntryRecorded
from periplus.dispatcher.v1.events_pb2 import RunFinished, StepFinished
from periplus.types.v1 import step_pb2
from periplus_cache import events
from periplus_common.bus import Broker, asyncapi

_AT = Timestamp(seconds=1_800_000_000)
_FINGERPRINT = "sha256:" + "1b" * 32
_MODEL = step_pb2.Artifact(
    name="model",
    object=step_pb2.ObjectRef(key="train-x7k2p/train-x7k2p-train-1234567890/model.tgz"),
    digest="sha256:" + "2c" * 32,
    size_bytes=2048,
)
_EXAMPLES = (
    StepFinished(
        project="digits",
        run="train-x7k2p",
        step="main.train(0)",
        template=step_pb2.StepTemplate(name="train", document='{"container": {"image": "train:1"}}'),
        phase=step_pb2.STEP_PHASE_CACHED,
        verdict=step_pb2.VERDICT_HIT,
        fingerprint=_FINGERPRINT,
        producer_run="train-b9d4c",
        producer_step="main.train(0)",
        saved=Duration(seconds=90),
        finished_at=_AT,
    ),
    RunFinished(
        project="digits",
        run="train-x7k2p",
        phase=step_pb2.RUN_PHASE_SUCCEEDED,
        pipeline="train",
        submitted_at=_AT,
        finished_at=_AT,
        cached_steps=1,
        saved=Duration(seconds=90),
        finished_steps=1,
    ),
    EntryRecorded(
        project="digits",
        fingerprint=_FINGERPRINT,
        producer_run="train-b9d4c",
        producer_step="main.train(0)",
        recorded_at=_AT,
    ),
    EntryDiverged(
        project="digits",
        fingerprint=_FINGERPRINT,
        run="train-x7k2p",
        step="main.train(0)",
        outputs=["parameters.accuracy"],
        detected_at=_AT,
    ),
    EntryInvalidated(project="digits", fingerprint=_FINGERPRINT, reason="bytes are gone", invalidated_at=_AT),
    ArtifactsDigested(project="digits", run="train-b9d4c", step="main.train(0)", outputs=[_MODEL]),
)


def application() -> FastStream:
    """The handlers as a FastStream application. It is documented and not run."""
    broker = Broker("nats://localhost:4222")
    events.subscribe(broker, cast("Any", None))
    description = "Records the results of finished steps and serves them to later runs."
    return asyncapi.application(broker, title="cache", description=description, examples=_EXAMPLES)
