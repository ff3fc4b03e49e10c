"""Switches telemetry on: logs always; traces, metrics and instrumentation where an OTLP endpoint is given."""

import logging
import sys

from periplus_common.telemetry.logs import JsonFormatter

_endpoint = ""


def enabled() -> bool:
    """Whether this process exports; code that prepares something costly for traces or metrics checks it first."""
    return bool(_endpoint)


def start(service: str, *, otlp_endpoint: str = "", level: str = "INFO") -> None:
    """Log as JSON to the standard error; export traces and metrics to `otlp_endpoint`, "host:port", unless it is empty.

    Called once, before servers, channels, pools and brokers are created.
    """
    global _endpoint  # noqa: PLW0603 - OpenTelemetry's providers are global, too
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(service))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs every request to Argo
    if otlp_endpoint:
        _endpoint = otlp_endpoint
        # Imported here: a process that exports nothing need not hold the exporter's second gRPC client.
        from periplus_common.telemetry.export import export

        export(service, otlp_endpoint)
