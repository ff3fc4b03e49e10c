"""What a service says of itself: JSON logs, traces and metrics by OpenTelemetry."""

import json
import logging
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from opentelemetry import metrics, propagate, trace
from opentelemetry.trace import Span, SpanKind

tracer = trace.get_tracer("periplus")
meter = metrics.get_meter("periplus")


def start(service: str, *, otlp_endpoint: str = "", level: str = "INFO") -> None:
    """Log as JSON to the standard error, and export traces and metrics where an OTLP endpoint is given."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(service))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # a line for every request to Argo tells nothing
    if otlp_endpoint:
        _export(service, otlp_endpoint)


def _export(service: str, endpoint: str) -> None:
    # Imported here as they weigh 5 MiB, and bring a second gRPC client, for who exports nothing.
    from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    resource = Resource.create({SERVICE_NAME: service})
    traces = TracerProvider(resource=resource)
    traces.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint, insecure=True)))
    trace.set_tracer_provider(traces)
    readers: list[MetricReader] = [
        PeriodicExportingMetricReader(OTLPMetricExporter(endpoint=endpoint, insecure=True))
    ]
    metrics.set_meter_provider(MeterProvider(readers, resource=resource))


class JsonFormatter(logging.Formatter):
    """One line of JSON a record, with the trace it belongs to."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03}Z",
            "level": record.levelname.lower(),
            "service": self._service,
            "logger": record.name,
            "message": record.getMessage(),
        }
        context = trace.get_current_span().get_span_context()
        if context.is_valid:
            line["trace_id"] = trace.format_trace_id(context.trace_id)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def carry() -> dict[str, str]:
    """The headers (`traceparent`) that carry the current trace to another process; empty outside a trace."""
    headers: dict[str, str] = {}
    propagate.inject(headers)
    return headers


@contextmanager
def continuing(name: str, headers: Mapping[str, str], kind: SpanKind) -> Iterator[Span]:
    """A span that continues the trace which `headers` carry."""
    with tracer.start_as_current_span(name, context=propagate.extract(headers), kind=kind) as span:
        yield span
