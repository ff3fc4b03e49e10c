"""OpenTelemetry's SDK, its OTLP exporter, and the instrumentation of the libraries that services use."""

import socket
from collections.abc import Sequence
from importlib.util import find_spec
from uuid import uuid4

from opentelemetry import metrics, trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.asyncpg import AsyncPGInstrumentor
from opentelemetry.instrumentation.grpc import GrpcAioInstrumentorClient, GrpcAioInstrumentorServer, filters
from opentelemetry.instrumentation.urllib3 import URLLib3Instrumentor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import Decision, ParentBased, Sampler, SamplingResult
from opentelemetry.trace import Link, SpanKind, TraceState
from opentelemetry.util.types import Attributes

_EXPORT_TIMEOUT_SECONDS = 5
"""Bounds the last export of traces, and then that of metrics, when a process ends and the collector does not answer."""


def export(service: str, endpoint: str) -> None:
    """Export to the collector at `endpoint` ("host:port", without TLS) from now on."""
    resource = Resource.create(
        {
            "service.namespace": "periplus",
            "service.name": service,
            "service.instance.id": str(uuid4()),
            "host.name": socket.gethostname(),
        }
    )
    traces = TracerProvider(sampler=ParentBased(_NoBackgroundCalls()), resource=resource)
    traces.add_span_processor(
        BatchSpanProcessor(
            OTLPSpanExporter(endpoint=endpoint, insecure=True, timeout=_EXPORT_TIMEOUT_SECONDS)
        )
    )
    trace.set_tracer_provider(traces)
    reader = PeriodicExportingMetricReader(
        OTLPMetricExporter(endpoint=endpoint, insecure=True, timeout=_EXPORT_TIMEOUT_SECONDS)
    )
    metrics.set_meter_provider(MeterProvider([reader], resource=resource))
    GrpcAioInstrumentorServer(filter_=filters.negate(filters.health_check())).instrument()  # type: ignore[no-untyped-call]
    GrpcAioInstrumentorClient().instrument()  # type: ignore[no-untyped-call]
    AsyncPGInstrumentor().instrument()  # type: ignore[no-untyped-call]
    URLLib3Instrumentor().instrument()  # which minio and requests are built on
    if find_spec("opentelemetry.instrumentation.httpx"):  # a dependency of services that use httpx
        from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor

        HTTPXClientInstrumentor().instrument()


class _NoBackgroundCalls(Sampler):
    """Samples every trace but those that begin with a call of ours: loops poll Postgres, Argo and S3 without a cause."""

    def should_sample(
        self,
        parent_context: Context | None,  # noqa: ARG002
        trace_id: int,  # noqa: ARG002
        name: str,  # noqa: ARG002
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,  # noqa: ARG002
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        """For spans without a parent only."""
        decision = Decision.DROP if kind is SpanKind.CLIENT else Decision.RECORD_AND_SAMPLE
        return SamplingResult(decision, attributes, trace_state)

    def get_description(self) -> str:
        """For the SDK's logs."""
        return "all but background calls"
