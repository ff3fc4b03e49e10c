"""The snapshotter's AsyncAPI document: `make asyncapi` writes docs/asyncapi/snapshotter.json."""

from faststream import FastStream
from google.protobuf.timestamp_pb2 import Timestamp

from periplus.snapshotter.v1 import snapshotter_pb2 as pb
from periplus.snapshotter.v1.events_pb2 import ImageMoved, SnapshotTaken
from periplus_common.bus import Broker, asyncapi
from periplus_snapshotter import events

_EXAMPLES = (
    SnapshotTaken(
        project="digits",
        snapshot="sha256:" + "3d" * 32,
        environment="sha256:" + "4e" * 32,
        commit="5f" * 20,
        platform=pb.Platform(
            python_version="3.11.7", python_implementation="CPython", system="Linux", machine="x86_64"
        ),
        locked_packages=42,
        taken_at=Timestamp(seconds=1_800_000_000),
    ),
    ImageMoved(
        project="digits",
        image="example/train:2",
        old_digest="sha256:" + "6a" * 32,
        new_digest="sha256:" + "7b" * 32,
        observed_at=Timestamp(seconds=1_800_000_000),
    ),
)


def application() -> FastStream:
    """The publishers as a FastStream application. It is documented and not run."""
    broker = Broker("nats://localhost:4222")
    events.declare(broker)
    description = (
        "Stores code, packages, images, interpreter and platform of runs, by digest. Consumes no events."
    )
    return asyncapi.application(broker, title="snapshotter", description=description, examples=_EXAMPLES)
