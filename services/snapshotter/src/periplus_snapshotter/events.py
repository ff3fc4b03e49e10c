"""The events that the snapshotter publishes, through its outbox. It consumes none."""

from periplus.snapshotter.v1.events_pb2 import ImageMoved, SnapshotTaken
from periplus_common.bus import Broker


def declare(broker: Broker) -> None:
    """Declare the events for the AsyncAPI document."""
    broker.publishes(SnapshotTaken, ImageMoved)
