"""Trace context in headers (W3C `traceparent`): of RPCs, events and outbox rows."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from opentelemetry import context, propagate, trace
from opentelemetry.trace import Span, SpanKind

tracer = trace.get_tracer("periplus")


def trace_headers() -> dict[str, str]:
    """The headers that hand the current trace to another process; empty outside a trace."""
    headers: dict[str, str] = {}
    propagate.inject(headers)
    return headers


@contextmanager
def remote_context(headers: Mapping[str, str]) -> Iterator[None]:
    """Make the span that `headers` name the current one. Without a valid `traceparent` nothing changes."""
    if "traceparent" not in headers:
        yield
        return
    token = context.attach(propagate.extract(headers))
    try:
        yield
    finally:
        context.detach(token)


@contextmanager
def span_from_headers(name: str, headers: Mapping[str, str], kind: SpanKind) -> Iterator[Span]:
    """A span whose parent is the one that `headers` name."""
    with tracer.start_as_current_span(name, context=propagate.extract(headers), kind=kind) as span:
        yield span
