"""Traces and metrics of a running cache, as an OTLP collector receives them."""

import asyncio
import os
import signal
import socket
import sys
from dataclasses import replace

from cache_service import LATER as FINISHED
from cache_service import NOW, TOKEN, Service, parameters, query, settings, timestamp
from google.protobuf.duration_pb2 import Duration

from periplus.cache.v1 import cache_pb2 as pb
from periplus.cache.v1.cache_pb2_grpc import CacheServiceStub
from periplus.types.v1 import step_pb2 as types
from periplus_cache.settings import Settings
from periplus_common import blobs, bus, rpc
from periplus_common.bus import Broker
from periplus_local.stack.collector import collecting

TRACE_ID, SPAN_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def environment(service_settings: Settings, otlp_endpoint: str) -> dict[str, str]:
    plain = service_settings.model_dump(mode="python")
    names = ("postgres_dsn", "nats_url", "token", "s3_access_key", "s3_secret_key")
    secrets = {name: plain[name].get_secret_value() for name in names}
    texts = {name: plain[name] for name in ("grpc_address", "s3_endpoint", "s3_bucket")}
    values = secrets | texts | {"otlp_endpoint": otlp_endpoint}
    return os.environ | {f"CACHE_{name.upper()}": value for name, value in values.items()}


async def test_the_events_of_a_step_belong_to_its_trace_and_hits_are_counted(embedded, dsn):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
    service_settings = settings(embedded, dsn, grpc_address=address)
    async with (
        collecting() as collector,
        Broker(embedded.nats_url) as broker,
        rpc.channel(address, TOKEN) as channel,
    ):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "periplus_cache", env=environment(service_settings, collector.endpoint)
        )
        try:
            await asyncio.wait_for(channel.channel_ready(), 60)
            store = blobs.connect(service_settings)
            service = Service(CacheServiceStub(channel), broker, store, "p-traced")
            step = service.finished("main.a", "a", inputs=types.Inputs(parameters=parameters(c="1")))
            event = bus.cloud_event(step, project=step.project, run=step.run, key=step.step, at=NOW)
            traced = {"traceparent": f"00-{TRACE_ID}-{SPAN_ID}-01"}
            await broker.publish_events([replace(event, headers=event.headers | traced)])
            (hit,) = await service.until_all_hit(query("s", "a", c=pb.TextPart(literal="1")))
            await service.publish(
                service.finished(
                    "main.a", "a", "r2", phase=types.STEP_PHASE_CACHED, fingerprint=hit.fingerprint, producer_run="r1",
                    producer_step="main.a", saved=Duration(seconds=60), finished_at=timestamp(FINISHED),
                )
            )  # fmt: skip
            await service.until_a_hit_is_counted()
            request = pb.InvalidateEntriesRequest(project=service.project, template="a", reason="bad")
            await service.stub.InvalidateEntries(request)
            store.close()
        finally:
            process.send_signal(signal.SIGTERM)
            await asyncio.wait_for(process.wait(), 30)
    recorded = [span for span in collector.trace(TRACE_ID) if span.name == "record step"]
    assert [span.parent_id for span in recorded] == [SPAN_ID]
    metrics = collector.metrics
    assert ("cache", {"periplus.verdict": "hit"}) in metrics["periplus.cache.verdicts"]
    assert ("cache", {"periplus.outcome": "added"}) in metrics["periplus.cache.results"]
    assert ("cache", {"periplus.cause": "request"}) in metrics["periplus.cache.invalidated_entries"]
    assert {"periplus.cache.hits", "periplus.cache.saved"} <= metrics.keys()
