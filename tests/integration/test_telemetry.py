"""What the whole stack exports over OTLP: one trace from the submission to lineage's rows, and metrics of every service."""

import asyncio
import re
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from stack import ROOT, up

from periplus.dispatcher.v1 import dispatcher_pb2
from periplus.snapshotter.v1 import snapshotter_pb2
from periplus_local.stack.collector import Collector, Span, collecting

SERVICES = ("cache", "dispatcher", "lineage", "snapshotter")
TRACE_ID, CLIENT_SPAN_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
MANIFEST = """
apiVersion: argoproj.io/v1alpha1
kind: Workflow
metadata: {generateName: traced-}
spec:
  entrypoint: main
  templates:
  - name: main
    dag: {tasks: [{name: only, template: only}]}
  - name: only
    script: {image: python:3.11, command: [python3], source: "open('/tmp/o', 'w').write('UNIQUE')"}
    outputs: {parameters: [{name: o, valueFrom: {path: /tmp/o}}]}
"""


def run_to_the_end(home: Path) -> None:
    """Start the stack, submit a run as a client that traces, wait for all of its events, and stop."""
    with up(home) as stack:
        spec = dispatcher_pb2.RunSpec(
            project="default",
            manifest=MANIFEST.replace("UNIQUE", uuid.uuid4().hex),
            claim=snapshotter_pb2.Claim(platform=snapshotter_pb2.Platform(machine="x86_64")),
        )
        request = dispatcher_pb2.SubmitRunRequest(spec=spec, request_id=str(uuid.uuid4()))
        metadata = (("traceparent", f"00-{TRACE_ID}-{CLIENT_SPAN_ID}-01"),)
        run = stack.dispatcher.SubmitRun(request, metadata=metadata, timeout=60).run
        stack.wait_for_cache(stack.wait_for_run(run))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Collector:
    """All that a stack exported from its start to its stop."""
    with pytest.MonkeyPatch.context() as environment:
        home = tmp_path_factory.mktemp("traced") / "home"

        async def collect() -> Collector:
            async with collecting() as collector:
                environment.setenv("PERIPLUS_OTLP_ENDPOINT", collector.endpoint)
                await asyncio.to_thread(run_to_the_end, home)
                return collector

        return asyncio.run(collect())


def one(spans: list[Span], service: str, kind: str, name: str) -> Span:
    """The only span of these with that service and kind whose name matches."""
    found = [
        span
        for span in spans
        if (span.service, span.kind) == (service, kind) and re.fullmatch(name, span.name)
    ]
    assert len(found) == 1, (service, kind, name, found, spans)
    return found[0]


def received(collector: Collector, sent: Span, service: str) -> Span:
    """The span in which a service handled the batch that has the event of `sent`: the span that received it links to it."""
    links = (sent.trace_id, sent.span_id)
    (receive,) = [span for span in collector.spans if span.service == service and links in span.links]
    assert receive.kind == "CONSUMER"
    return one(collector.children(receive), service, "CONSUMER", ".* process")


def statements(collector: Collector, span: Span) -> str:
    """The SQL that ran inside a span."""
    return "\n".join(child.attributes.get("db.statement", "") for child in collector.children(span))


def test_one_trace_leads_from_the_submission_to_the_rows_of_lineage(exported: Collector) -> None:
    collector = exported
    trace = collector.trace(TRACE_ID)
    submit = one(trace, "dispatcher", "SERVER", "/periplus.dispatcher.v1.DispatcherService/SubmitRun")
    assert submit.parent_id == CLIENT_SPAN_ID

    called = collector.children(submit)
    for service, method in (
        ("cache", "/periplus.cache.v1.CacheService/ResolveSteps"),
        ("snapshotter", "/periplus.snapshotter.v1.SnapshotterService/TakeSnapshot"),
    ):
        client = one(called, "dispatcher", "CLIENT", method)
        server = one(collector.children(client), service, "SERVER", method)
        assert "SELECT" in statements(collector, server)
    urls = [
        str(span.attributes.get("http.url", ""))
        for span in called
        if span.name.startswith("POST") and span.kind == "CLIENT"
    ]
    assert any(re.search(r"/api/v1/workflows/[a-z-]+$", url) for url in urls), urls
    assert "INSERT INTO outbox" in statements(collector, submit)

    # The outbox's row has the trace of the submission, and the message that of the span that published it.
    submitted = one(called, "dispatcher", "PRODUCER", r"periplus\.dispatcher\.v1\.RunSubmitted create")
    one(collector.children(submitted), "dispatcher", "PRODUCER", ".* publish")
    assert re.search(r"INSERT INTO run\b", statements(collector, received(collector, submitted, "lineage")))

    finished = one(trace, "dispatcher", "PRODUCER", r"periplus\.dispatcher\.v1\.StepFinished create")
    for service in ("lineage", "cache"):
        assert statements(collector, received(collector, finished, service))


def test_every_service_exports_the_metrics_of_its_calls_and_events(exported: Collector) -> None:
    metrics = exported.metrics
    assert {service for service, _ in metrics["rpc.server.call.duration"]} == set(SERVICES)
    assert {service for service, _ in metrics["messaging.process.duration"]} == {"cache", "lineage"}
    assert {service for service, _ in metrics["messaging.client.sent.messages"]} >= {
        "cache",
        "dispatcher",
        "snapshotter",
    }
    for name in ("periplus.outbox.unpublished", "periplus.outbox.age"):
        assert {service for service, _ in metrics[name]} == {"cache", "dispatcher", "snapshotter"}
    assert ("cache", {"periplus.verdict": "miss"}) in metrics["periplus.cache.verdicts"]
    unknown = set(metrics) - listed_metrics() - {
        "http.client.duration", "http.client.request.size", "http.client.response.size",
    }  # fmt: skip
    assert unknown == set(), "docs/telemetry.md does not list them"


def listed_metrics() -> set[str]:
    """The metrics of the table in docs/telemetry.md."""
    return set(re.findall(r"^\| `([a-z_.]+)` \|", (ROOT / "docs" / "telemetry.md").read_text(), re.MULTILINE))


def test_the_table_of_metrics_is_what_the_code_declares(tmp_path: Path) -> None:
    document = ROOT / "docs" / "telemetry.md"
    written = tmp_path / document.name
    written.write_text(document.read_text())
    modules = ("periplus_common.retention", *(f"periplus_{service}.app" for service in SERVICES))
    subprocess.run(
        [sys.executable, "-m", "periplus_common.telemetry", written, *modules], check=True, timeout=60
    )
    assert document.read_text() == written.read_text(), "run `make metrics`"


def test_metrics_are_declared_by_the_functions_that_put_them_into_the_table() -> None:
    direct = re.compile(r"\.create_(counter|histogram|gauge|up_down_counter|observable_\w+)\(|get_meter\(")
    sources = [*ROOT.glob("libs/*/src/**/*.py"), *ROOT.glob("services/*/src/**/*.py")]
    assert len(sources) > 100
    found = [path.relative_to(ROOT).as_posix() for path in sources if direct.search(path.read_text())]
    assert found == ["libs/common/src/periplus_common/telemetry/metrics.py"]
