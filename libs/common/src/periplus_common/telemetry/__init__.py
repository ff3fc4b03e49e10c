"""What a service reports of itself: JSON logs, and by OpenTelemetry traces and metrics."""

from periplus_common.telemetry.logs import JsonFormatter, log_context
from periplus_common.telemetry.metrics import counter, gauge, histogram
from periplus_common.telemetry.start import enabled, start
from periplus_common.telemetry.traces import remote_context, span_from_headers, trace_headers, tracer

__all__ = [
    "JsonFormatter",
    "counter",
    "enabled",
    "gauge",
    "histogram",
    "log_context",
    "remote_context",
    "span_from_headers",
    "start",
    "trace_headers",
    "tracer",
]
