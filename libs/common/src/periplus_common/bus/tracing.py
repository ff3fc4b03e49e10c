"""FastStream's OpenTelemetry middleware, with the event's type as the destination: subjects hold run ids."""

from collections.abc import Sequence
from typing import Any

from faststream.nats.opentelemetry.provider import (
    NatsBatchTelemetrySettingsProvider,
    NatsTelemetrySettingsProvider,
)
from faststream.opentelemetry import TelemetryMiddleware
from opentelemetry.metrics import NoOpMeterProvider


def event_type(subject: str) -> str:
    """A subject without project and run: one name for all events of a type."""
    return subject.rsplit(".", 2)[0] if subject.count(".") > 2 else subject


def middleware() -> Any:
    """Spans for what is published and handled. Metrics are `delivery`'s: it knows the consumer, and what failed."""
    return TelemetryMiddleware(settings_provider_factory=_provider, meter_provider=NoOpMeterProvider())


class _Single(NatsTelemetrySettingsProvider):
    def get_publish_destination_name(self, cmd: Any) -> str:
        return event_type(cmd.destination)

    def get_consume_destination_name(self, msg: Any) -> str:
        return event_type(msg.raw_message.subject)


class _Batch(NatsBatchTelemetrySettingsProvider):
    def get_publish_destination_name(self, cmd: Any) -> str:
        return event_type(cmd.destination)

    def get_consume_destination_name(self, msg: Any) -> str:
        return event_type(msg.raw_message[0].subject)


def _provider(msg: Any) -> Any:
    return _Batch() if isinstance(msg, Sequence) else _Single()
