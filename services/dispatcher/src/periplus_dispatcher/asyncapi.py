"""The dispatcher's AsyncAPI document: `make asyncapi` writes docs/asyncapi/dispatcher.json."""

from faststream import FastStream
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from periplus.dispatcher.v1.events_pb2 import (
    ImageDrifted,
    RunFinished,
    RunSubmitted,
    StepDelayed,
    StepFinished,
    StepNode,
    StepStarted,
)
from periplus.types.v1 import step_pb2 as pb
from periplus_common.bus import Broker, asyncapi
from periplus_dispatcher import events

_PROJECT, _RUN = "digits", "train-x7k2p"
_AT = Timestamp(seconds=1_800_000_000)
_MODEL = pb.Artifact(
    name="model",
    object=pb.ObjectRef(key="train-x7k2p/model.tgz"),
    digest="sha256:" + "3d" * 32,
    size_bytes=4096,
)
_EXAMPLES = (
    RunSubmitted(
        project=_PROJECT,
        run=_RUN,
        pipeline="train",
        snapshot="sha256:" + "4e" * 32,
        parameters=[pb.Parameter(name="rows", value="100")],
        steps=[StepNode(path="train", template="train", depends_on=["prepare"], verdict=pb.VERDICT_MISS)],
        manifest_digest="sha256:" + "5f" * 32,
        submitted_at=_AT,
    ),
    StepDelayed(
        project=_PROJECT,
        run=_RUN,
        step="train",
        template="train",
        node="train-x7k2p-1234567890",
        reason='ImagePullBackOff: Back-off pulling image "example/train:2"',
        observed_at=_AT,
    ),
    StepStarted(
        project=_PROJECT,
        run=_RUN,
        step="train",
        template="train",
        node="train-x7k2p-1234567890",
        started_at=_AT,
    ),
    StepFinished(
        project=_PROJECT,
        run=_RUN,
        step="train",
        template=pb.StepTemplate(name="train", document="{}"),
        node="train-x7k2p-1234567890",
        phase=pb.STEP_PHASE_SUCCEEDED,
        inputs=pb.Inputs(parameters=[pb.Parameter(name="rows", value="100")]),
        outputs=pb.Outputs(artifacts=[_MODEL], exit_code=0),
        started_at=_AT,
        finished_at=_AT,
        verdict=pb.VERDICT_MISS,
        attempts=1,
    ),
    ImageDrifted(
        project=_PROJECT,
        run=_RUN,
        step="train",
        template="train",
        node="train-x7k2p-1234567890",
        container="main",
        image="example/train:2",
        expected_digest="sha256:" + "6a" * 32,
        actual_digest="sha256:" + "7b" * 32,
        finished_at=_AT,
    ),
    RunFinished(
        project=_PROJECT,
        run=_RUN,
        phase=pb.RUN_PHASE_SUCCEEDED,
        outputs=pb.Outputs(parameters=[pb.Parameter(name="accuracy", value="0.98")]),
        pipeline="train",
        submitted_at=_AT,
        finished_at=_AT,
        cached_steps=3,
        saved=Duration(seconds=90),
        finished_steps=5,
    ),
)


def application() -> FastStream:
    """The publishers as a FastStream application. It is documented and not run."""
    broker = Broker("nats://localhost:4222")
    events.declare(broker)
    description = "Runs Argo manifests without the steps whose results the cache has. Consumes no events."
    return asyncapi.application(broker, title="dispatcher", description=description, examples=_EXAMPLES)
