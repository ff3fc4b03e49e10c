"""Bounds and delays of the message bus; a test passes shorter ones."""

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True)
class BusSettings:
    """What a `Broker` waits for, and how often it tries."""

    ack_wait: timedelta = timedelta(seconds=6)
    """JetStream redelivers a message after so long without an ack; a working consumer extends it three times as often."""
    publish_timeout: timedelta = timedelta(seconds=5)
    """A publish without an answer may have been stored; the same event id is published again."""
    retry_delay: timedelta = timedelta(seconds=5)
    """Before a failed message is redelivered. JetStream's own back-off is for time-outs, not for naks."""
    early_retry_delay: timedelta = timedelta(milliseconds=500)
    """The same for `NotFound`: the event came before what it refers to."""
    unavailable_pause: timedelta = timedelta(seconds=1)
    """Before a batch is handled again whose handler raised `Unavailable`."""
    pull_expiry: timedelta = timedelta(seconds=5)
    """How long a request for messages stays at the server before it is sent again."""
    graceful_timeout: timedelta = timedelta(seconds=15)
    """How long a stopping broker waits for handlers that run."""
    pending_interval: timedelta = timedelta(seconds=15)
    """Between two measurements of what consumers have pending, where telemetry is on."""
    max_deliveries: int = 10
    """A message that failed so often becomes a dead letter."""
