"""Log lines as JSON with trace and run, trace context in headers, and the table of metrics."""

import json
import logging
import re
import sys
from collections.abc import Iterator

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import SpanKind

from periplus_common import telemetry
from periplus_common.telemetry import metrics

TRACE = "0af7651916cd43dd8448eb211c80319c"
SENT = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}


def line(*args: object, message: str = "said", exc_info=None) -> dict[str, object]:
    record = logging.LogRecord("some.logger", logging.WARNING, "f.py", 1, message, args, exc_info)
    formatted = telemetry.JsonFormatter("cache").format(record)
    assert "\n" not in formatted
    return json.loads(formatted)


def test_a_line_has_time_level_service_logger_and_message():
    found = line("ü\n\x00", message="it is %s")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", str(found.pop("time")))
    assert found == {
        "level": "warning",
        "service": "cache",
        "logger": "some.logger",
        "message": "it is ü\n\x00",
    }


def test_an_exception_is_in_its_line():
    try:
        raise KeyError("here")
    except KeyError:
        found = line(exc_info=sys.exc_info())
    assert "KeyError: 'here'" in str(found["exception"])
    assert "Traceback" in str(found["exception"])


def test_a_trace_of_headers_is_logged_and_handed_on():
    with telemetry.span_from_headers("x", SENT, SpanKind.SERVER) as span:
        assert line()["trace_id"] == TRACE
        assert line()["span_id"] == trace.format_span_id(span.get_span_context().span_id)
        assert telemetry.trace_headers()["traceparent"].split("-")[1] == TRACE
    assert "trace_id" not in line()
    assert telemetry.trace_headers() == {}


def test_a_span_belongs_to_the_trace_of_the_headers():
    tracer = TracerProvider().get_tracer("x")
    with tracer.start_as_current_span("outer") as outer:
        sent = telemetry.trace_headers()
    with telemetry.span_from_headers("x", sent, SpanKind.CONSUMER):
        found = trace.get_current_span().get_span_context()
    assert found.trace_id == outer.get_span_context().trace_id


def test_an_invalid_traceparent_is_no_trace():
    with telemetry.span_from_headers("x", {"traceparent": "00-zz"}, SpanKind.SERVER):
        assert "trace_id" not in line()


@pytest.fixture
def root_logger() -> Iterator[None]:
    """Restores what `telemetry.start` changes."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def test_a_started_service_logs_to_the_standard_error(capfd, root_logger: None):
    telemetry.start("lineage")
    logging.getLogger("a").info("text \udc80")
    logging.getLogger("a").debug("not this")
    logging.getLogger("httpx").info("nor this")
    out, err = capfd.readouterr()
    assert out == ""
    (written,) = err.splitlines()
    assert '"service": "lineage"' in written


@pytest.mark.parametrize(("level", "logged"), [("INFO", False), ("DEBUG", True)])
def test_a_record_below_the_level_is_not_even_formatted(level: str, logged: bool, root_logger: None):
    formatted: list[bool] = []

    class Costly:
        def __str__(self) -> str:
            formatted.append(True)
            return "costly"

    telemetry.start("lineage", level=level)
    logging.getLogger("a").debug("%s", Costly())
    assert bool(formatted) == logged


def test_fields_of_the_log_context_are_in_every_line_of_its_block():
    with telemetry.log_context(project="p", run=""), telemetry.log_context(run="r"):
        assert line().items() >= {"project": "p", "run": "r"}.items()
    assert not {"project", "run"} & line().keys()
    with telemetry.log_context(project="p", run=""):
        assert "run" not in line()


def test_a_remote_context_without_a_trace_leaves_the_current_span():
    with telemetry.span_from_headers("x", SENT, SpanKind.SERVER):
        with telemetry.remote_context({}):
            assert line()["trace_id"] == TRACE
        with telemetry.remote_context({"traceparent": SENT["traceparent"].replace("0a", "0b", 1)}):
            assert line()["trace_id"] == TRACE.replace("0a", "0b", 1)
        assert line()["trace_id"] == TRACE


def test_a_metric_that_is_declared_twice_is_the_same_or_an_error():
    counter = {"unit": "{row}", "description": "of a test"}
    telemetry.counter("periplus.test.rows", **counter)
    telemetry.counter("periplus.test.rows", **counter)
    with pytest.raises(ValueError, match=r"periplus\.test\.rows is declared twice"):
        telemetry.counter("periplus.test.rows", unit="s", description="of a test")


def test_the_table_of_metrics_is_written_between_its_markers():
    telemetry.gauge("periplus.test.depth", unit="{event}", description="of a test", attributes=("a.b",))
    text = f"before {metrics.TABLE_BEGIN}\nof before\n{metrics.TABLE_END} after"
    written = metrics.with_table(text)
    assert written.startswith(f"before {metrics.TABLE_BEGIN}\n| Metric |")
    assert "| `periplus.test.depth` | gauge | {event} | `a.b` | of a test |" in written
    assert written.endswith(f"{metrics.TABLE_END} after")
    assert "of before" not in written
    assert metrics.with_table(written) == written
    with pytest.raises(ValueError, match="has no"):
        metrics.with_table("no markers")
