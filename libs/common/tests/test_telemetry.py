"""A line of JSON a record, in the trace it belongs to."""

import json
import logging
import re
import sys

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import SpanKind

from periplus_common import telemetry

TRACE = "0af7651916cd43dd8448eb211c80319c"
SENT = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}


def line(*args: object, message: str = "said", exc_info=None) -> dict[str, object]:
    record = logging.LogRecord("some.logger", logging.WARNING, "f.py", 1, message, args, exc_info)
    formatted = telemetry.JsonFormatter("cache").format(record)
    assert "\n" not in formatted
    return json.loads(formatted)


def test_a_line_tells_when_who_what_and_how_bad():
    told = line("ü\n\x00", message="it is %s")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", str(told.pop("time")))
    assert told == {
        "level": "warning",
        "service": "cache",
        "logger": "some.logger",
        "message": "it is ü\n\x00",
    }


def test_an_exception_is_in_its_line():
    try:
        raise KeyError("here")
    except KeyError:
        told = line(exc_info=sys.exc_info())
    assert "KeyError: 'here'" in str(told["exception"])
    assert "Traceback" in str(told["exception"])


def test_a_trace_goes_on_and_is_carried_and_logged():
    with telemetry.continuing("x", SENT, SpanKind.SERVER):
        assert line()["trace_id"] == TRACE
        assert telemetry.carry()["traceparent"].split("-")[1] == TRACE
    assert "trace_id" not in line()
    assert telemetry.carry() == {}


def test_a_span_continues_the_trace_that_was_sent():
    tracer = TracerProvider().get_tracer("x")
    with tracer.start_as_current_span("outer") as outer:
        sent = telemetry.carry()
    with telemetry.continuing("x", sent, SpanKind.CONSUMER):
        found = trace.get_current_span().get_span_context()
    assert found.trace_id == outer.get_span_context().trace_id


def test_headers_that_carry_nonsense_are_no_trace():
    with telemetry.continuing("x", {"traceparent": "00-zz"}, SpanKind.SERVER):
        assert "trace_id" not in line()


def test_started_a_service_logs_lines_to_the_standard_error(capfd):
    root = logging.getLogger()
    kept, level = root.handlers[:], root.level
    try:
        telemetry.start("lineage")
        logging.getLogger("a").info("text \udc80")
        logging.getLogger("a").debug("not this")
        logging.getLogger("httpx").info("nor this")
    finally:
        root.handlers[:] = kept
        root.setLevel(level)
    out, err = capfd.readouterr()
    assert out == ""
    (written,) = err.splitlines()
    assert '"service": "lineage"' in written


@pytest.mark.parametrize("level", [logging.DEBUG])
def test_what_is_not_logged_is_not_formatted(level: int):
    class Costly:
        def __str__(self) -> str:
            raise AssertionError

    logging.getLogger("never").setLevel(logging.INFO)
    logging.getLogger("never").log(level, "%s", Costly())
