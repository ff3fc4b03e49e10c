"""NATS JetStream by FastStream: events, durable consumers in batches, dead letters, publishing."""

from periplus_common.bus.broker import Broker, NotStored, StreamState, consuming
from periplus_common.bus.events import Batch, CloudEvent, Codec, Event, cloud_event
from periplus_common.bus.settings import BusSettings

__all__ = [
    "Batch",
    "Broker",
    "BusSettings",
    "CloudEvent",
    "Codec",
    "Event",
    "NotStored",
    "StreamState",
    "cloud_event",
    "consuming",
]
