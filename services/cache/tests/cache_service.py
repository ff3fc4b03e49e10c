"""The service in this process, on real NATS, Postgres and S3, and a client of it."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from periplus.cache.v1 import cache_pb2 as pb
from periplus.cache.v1.cache_pb2_grpc import CacheServiceStub
from periplus.dispatcher.v1 import events_pb2 as dispatcher
from periplus.types.v1 import step_pb2 as types
from periplus_cache.app import app
from periplus_cache.settings import Settings
from periplus_common import blobs, bus, rpc
from periplus_common.bus import Broker
from periplus_common.errors import PeriplusError
from periplus_local.stack.testing import Servers

TOKEN = "secret"
NOW = datetime.now(UTC)
LATER = NOW + timedelta(
    hours=12
)  # an object that a test writes must be older than its step, however late the test runs


def settings(embedded: Servers, dsn: str, **more: Any) -> Settings:
    s3 = embedded.s3
    return Settings(
        **{
            "postgres_dsn": dsn, "nats_url": embedded.service_nats_urls["cache"], "grpc_address": "127.0.0.1:0", "token": TOKEN,
            "s3_endpoint": s3.endpoint, "s3_access_key": s3.access_key, "s3_secret_key": s3.secret_key,
            "s3_bucket": s3.bucket,
        } | more
    )  # fmt: skip


@dataclass
class Service:
    """A running service, a client of it, and a connection that publishes StepFinished events."""

    stub: CacheServiceStub
    broker: Broker
    store: blobs.Blobs
    project: str

    async def publish(self, *events: dispatcher.StepFinished) -> None:
        await self.broker.publish_events(
            [
                bus.cloud_event(e, project=e.project, run=e.run, key=e.step + secrets.token_hex(4), at=NOW)
                for e in events
            ]
        )

    async def resolve(self, *steps: pb.StepQuery) -> list[pb.StepVerdict]:
        templates = {step.template: template(step.template) for step in steps}
        request = pb.ResolveStepsRequest(project=self.project, run="r", templates=templates, steps=steps)
        return list((await self.stub.ResolveSteps(request)).verdicts)

    async def until_all_hit(self, *steps: pb.StepQuery) -> list[pb.StepVerdict]:
        async with asyncio.timeout(60):
            while True:
                found = await self.resolve(*steps)
                if all(v.verdict == types.VERDICT_HIT for v in found):
                    return found
                await asyncio.sleep(0.05)

    async def until_listed(self, count: int) -> None:
        async with asyncio.timeout(60):
            while True:
                page = await self.stub.ListEntries(pb.ListEntriesRequest(project=self.project))
                if len(page.entries) >= count:
                    return
                await asyncio.sleep(0.05)

    async def until_a_hit_is_counted(self) -> pb.GetSavingsResponse:
        async with asyncio.timeout(60):
            while True:
                savings = await self.stub.GetSavings(pb.GetSavingsRequest(project=self.project))
                if savings.hits:
                    return savings
                await asyncio.sleep(0.05)

    def finished(self, step: str, template_: str, run: str = "r1", **more: Any) -> dispatcher.StepFinished:
        return dispatcher.StepFinished(
            **{
                "project": self.project, "run": run, "step": step, "template": template(template_),
                "phase": types.STEP_PHASE_SUCCEEDED, "verdict": types.VERDICT_MISS,
                "started_at": timestamp(LATER - timedelta(seconds=60)), "finished_at": timestamp(LATER),
            } | more
        )  # fmt: skip


@asynccontextmanager
async def running(service_settings: Settings, nats_url: str) -> AsyncIterator[Service]:
    async with (
        app(service_settings) as port,
        rpc.channel(f"127.0.0.1:{port}", TOKEN) as channel,
        Broker(nats_url) as broker,
    ):
        store = blobs.connect(service_settings)
        yield Service(CacheServiceStub(channel), broker, store, f"p-{secrets.token_hex(4)}")
        store.close()


@pytest.fixture
async def service(embedded: Servers, dsn: str) -> AsyncIterator[Service]:
    async with running(settings(embedded, dsn), embedded.nats_url) as opened:
        yield opened


def template(name: str) -> types.StepTemplate:
    return types.StepTemplate(name=name, document=json.dumps({"does": name}))


def timestamp(at: datetime) -> Timestamp:
    message = Timestamp()
    message.FromDatetime(at)
    return message


def parameters(**values: str) -> list[types.Parameter]:
    return [types.Parameter(name=name, value=value) for name, value in values.items()]


def query(id_: str, template_: str, items: pb.TextPart | None = None, **values: pb.TextPart) -> pb.StepQuery:
    return pb.StepQuery(
        id=id_,
        template=template_,
        parameters=[pb.ParameterSource(name=n, value=pb.Text(parts=[part])) for n, part in values.items()],
        items=None if items is None else pb.Text(parts=[items]),
    )


def literal(text: str) -> pb.TextPart:
    return pb.TextPart(literal=text)


def output(step: str, name: str) -> pb.TextPart:
    return pb.TextPart(output=pb.OutputRef(step=step, name=name))


async def error_of(call: Any) -> PeriplusError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return rpc.from_status(caught.value)
