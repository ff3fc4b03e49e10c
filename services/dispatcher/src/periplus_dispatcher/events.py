"""The events that the dispatcher publishes, through its outbox. It consumes none: it watches Argo instead."""

from periplus.dispatcher.v1.events_pb2 import (
    ImageDrifted,
    RunFinished,
    RunSubmitted,
    StepDelayed,
    StepFinished,
    StepStarted,
)
from periplus_common.bus import Broker


def declare(broker: Broker) -> None:
    """Declare the events for the AsyncAPI document."""
    broker.publishes(RunSubmitted, StepDelayed, StepStarted, StepFinished, ImageDrifted, RunFinished)
