"""A process that exports: one trace through gRPC, Postgres, S3, the outbox and NATS, and its metrics, as OTLP says them."""

import asyncio
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator

import pytest

from periplus_common.bus import Broker
from periplus_local.stack.collector import Collector, Span, collecting
from periplus_local.stack.testing import Servers

DURABLE = "test-export"

PROGRAM = textwrap.dedent(
    """
    import asyncio, json, os, sys
    from contextlib import closing
    from datetime import UTC, datetime, timedelta

    import grpc
    from google.protobuf.empty_pb2 import Empty
    from opentelemetry import trace

    from periplus.cache.v1.events_pb2 import EntryRecorded
    from periplus_common import blobs, bus, outbox, postgres, rpc, telemetry
    from periplus_common.bus import Batch, Broker, BusSettings
    from periplus_common.errors import Invalid
    from periplus_common.settings import ObjectStoreSettings

    given = json.loads(os.environ["GIVEN"])
    telemetry.start("example", otlp_endpoint=given["endpoint"])
    handled = asyncio.Event()

    async def main():
        broker = Broker(given["nats_url"], settings=BusSettings(pending_interval=timedelta(seconds=0.2)))

        @broker.batches("CACHE", given["durable"])
        async def on_entries(batch: Batch[EntryRecorded]) -> None:
            if any(event.data.producer_run == given["durable"] for event in batch):
                async with database.connection() as connection:
                    await connection.execute("SELECT 2")
                handled.set()
                raise Invalid("not wanted")

        async def do(request, context):
            await store.put(blobs.ObjectRef("telemetry-test"), b"a")
            message = EntryRecorded(project="p", producer_run=given["durable"])
            event = bus.cloud_event(message, project="p", run=given["durable"], key="k", at=datetime.now(UTC))
            async with database.transaction() as connection:
                await outbox.add(connection, [event])
            return Empty()

        service = grpc.method_handlers_generic_handler("test.Service", {
            "Do": grpc.unary_unary_rpc_method_handler(do, Empty.FromString, lambda message: b"")
        })
        settings = ObjectStoreSettings(**given["s3"], postgres_dsn=given["dsn"], nats_url="", grpc_address="", token="t")
        async with postgres.database(given["dsn"]) as database:
            with closing(blobs.connect(settings)) as store:
                async with (
                    bus.consuming(broker),
                    outbox.relaying(given["dsn"], broker, "CACHE"),
                    rpc.serving("127.0.0.1:0", "t", lambda s: s.add_generic_rpc_handlers((service,)), names=[]) as port,
                    rpc.channel(f"127.0.0.1:{port}", "t") as channel,
                ):
                    call = channel.unary_unary("/test.Service/Do", Empty.SerializeToString, Empty.FromString)
                    with telemetry.tracer.start_as_current_span("root"):
                        await call(Empty())
                    await asyncio.wait_for(handled.wait(), 30)
                    await asyncio.sleep(1)

    asyncio.run(main())
    """
)


async def run(given: dict[str, object]) -> list[dict[str, str]]:
    """Run the program to its end: the lines that it logged."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, env=os.environ | {"GIVEN": json.dumps(given)}, stderr=subprocess.PIPE
    )
    _, errors = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, errors.decode()
    return [json.loads(line) for line in errors.decode().splitlines()]


@pytest.fixture
async def received(embedded: Servers, dsn: str) -> AsyncIterator[tuple[Collector, list[dict[str, str]]]]:
    s3 = embedded.s3
    async with Broker(embedded.nats_url) as broker:
        await broker.connection.jetstream().purge_stream(
            "CACHE"
        )  # a batch with events of other tests is handled twice
    async with collecting() as collector:
        given = {
            "endpoint": collector.endpoint, "dsn": dsn, "nats_url": embedded.nats_url, "durable": DURABLE,
            "s3": {
                "s3_endpoint": s3.endpoint, "s3_access_key": s3.access_key, "s3_secret_key": s3.secret_key,
                "s3_bucket": s3.bucket,
            },
        }  # fmt: skip
        lines = await run(given)
        yield collector, lines


def one(spans: list[Span], name: str) -> Span:
    (found,) = [span for span in spans if span.name == name]
    return found


async def test_a_trace_leads_from_a_call_to_the_consumer_of_its_event_and_metrics_count_it(received):
    collector, lines = received
    root = one(collector.spans, "root")
    (client,) = collector.children(root)
    (server,) = collector.children(client)
    assert (client.kind, server.kind) == ("CLIENT", "SERVER")
    assert client.name == server.name == "/test.Service/Do"
    served = {span.name: span for span in collector.children(server)}
    assert served["PUT"].attributes["http.url"].endswith("/artifacts/telemetry-test")
    assert "INSERT INTO outbox" in served["INSERT"].attributes["db.statement"]
    create = served[
        "periplus.cache.v1.EntryRecorded create"
    ]  # the relay's: its parent is in the outbox's row
    sent = {span.name: span for span in collector.children(create)}
    assert sent.keys() == {"periplus.cache.v1.EntryRecorded publish", f"periplus-dead.{DURABLE} create"}
    assert {create.kind, *(span.kind for span in sent.values())} == {"PRODUCER"}

    (receive,) = [span for span in collector.spans if (create.trace_id, create.span_id) in span.links]
    (process,) = collector.children(receive)
    assert (receive.kind, process.name) == ("CONSUMER", "periplus.cache.v1.EntryRecorded process")
    assert process.is_error
    assert one(collector.children(process), "SELECT").attributes["db.statement"] == "SELECT 2"

    (line,) = [line for line in lines if line["level"] == "error"]
    assert (line["trace_id"], line["span_id"]) == (root.trace_id, create.span_id)
    assert (line["project"], line["run"]) == ("p", DURABLE)

    # What loops do without a cause is no trace: the relay's queries, and S3's and Argo's polls.
    assert {span.trace_id for span in collector.spans} == {root.trace_id, receive.trace_id}

    consumer = {
        "messaging.system": "nats",
        "messaging.destination.name": "CACHE",
        "messaging.consumer.group.name": DURABLE,
    }
    for metric, attributes in {
        "rpc.server.call.duration": {
            "rpc.system.name": "grpc", "rpc.method": "test.Service/Do", "rpc.response.status_code": "OK",
        },
        "messaging.client.sent.messages": {"messaging.system": "nats", "messaging.destination.name": "CACHE"},
        "messaging.process.duration": consumer | {"error.type": "Invalid"},
        "messaging.client.consumed.messages": consumer | {"periplus.outcome": "dead_letter"},
        "periplus.consumer.pending": consumer,
        "periplus.outbox.unpublished": {"messaging.destination.name": "CACHE"},
        "periplus.outbox.age": {"messaging.destination.name": "CACHE"},
    }.items():  # fmt: skip
        assert ("example", attributes) in collector.metrics[metric], (metric, collector.metrics[metric])


def test_a_process_without_an_endpoint_imports_no_sdk_and_no_instrumentation():
    program = """
import sys
from periplus_common import blobs, bus, outbox, postgres, retention, rpc, telemetry
telemetry.start("example")
bus.Broker("nats://localhost:4222")
heavy = ("opentelemetry.sdk", "opentelemetry.exporter", "opentelemetry.instrumentation", "wrapt", "yaml")
print([name for name in sys.modules if name.startswith(heavy)])
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, text=True, timeout=60
    )
    assert done.stdout == "[]\n"


def test_a_process_whose_collector_does_not_answer_ends_within_seconds():
    program = """
from periplus_common import telemetry
telemetry.start("example", otlp_endpoint="127.0.0.1:9")
telemetry.counter("periplus.example", unit="{row}", description="of a test").add(1)
with telemetry.tracer.start_as_current_span("lost"):
    pass
"""
    subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, timeout=15)
