"""The trace of an event, from its publisher to the rows that it changes."""

import asyncio
import os
import signal
import sys
from dataclasses import replace

import asyncpg
from run_events import RunEvents, cloud_event

from periplus_common.bus import Broker
from periplus_lineage.settings import Settings
from periplus_local.stack.collector import collecting

TRACE_ID, SPAN_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def environment(settings: Settings, otlp_endpoint: str) -> dict[str, str]:
    return os.environ | {
        "LINEAGE_POSTGRES_DSN": settings.postgres_dsn.get_secret_value(),
        "LINEAGE_NATS_URL": settings.nats_url.get_secret_value(),
        "LINEAGE_GRPC_ADDRESS": settings.grpc_address,
        "LINEAGE_TOKEN": settings.token.get_secret_value(),
        "LINEAGE_S3_ENDPOINT": settings.s3_endpoint,
        "LINEAGE_S3_BUCKET": settings.s3_bucket,
        "LINEAGE_OTLP_ENDPOINT": otlp_endpoint,
    }


async def wait_for_rows(dsn: str, count: int) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        async with asyncio.timeout(60):
            while await connection.fetchval("SELECT count(*) FROM step") < count:  # noqa: ASYNC110 - rows have no event
                await asyncio.sleep(0.1)
    finally:
        await connection.close()


async def test_the_span_that_writes_a_batch_links_to_the_traces_of_its_events(settings: Settings) -> None:
    run_events = RunEvents("traced").chain("a", "b")
    events = [cloud_event(event, "traced") for event in run_events.events]
    traced = {"traceparent": f"00-{TRACE_ID}-{SPAN_ID}-01"}
    async with Broker(settings.nats_url.get_secret_value()) as broker:
        await broker.publish_events([replace(event, headers=event.headers | traced) for event in events])
    async with collecting() as collector:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "periplus_lineage", env=environment(settings, collector.endpoint)
        )
        try:
            await wait_for_rows(settings.postgres_dsn.get_secret_value(), 2)
        finally:
            process.send_signal(signal.SIGTERM)
            await asyncio.wait_for(process.wait(), 30)
    (insert, *_) = [
        span for span in collector.spans if "INSERT INTO step " in span.attributes.get("db.statement", "")
    ]
    spans = {span.span_id: span for span in collector.trace(insert.trace_id)}
    ancestors = [insert]
    while parent := spans.get(ancestors[-1].parent_id):
        ancestors.append(parent)
    links = {trace_id for span in ancestors for trace_id, _ in span.links}
    assert links == {TRACE_ID}
    assert ("lineage", {"periplus.outcome": "stored"}) in collector.metrics["periplus.lineage.events"]
