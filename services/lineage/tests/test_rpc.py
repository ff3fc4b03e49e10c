"""The whole service on real servers: events are published, and read back by gRPC."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc
import pytest
from google.protobuf.message import Message
from story import PROJECT, Story, published

from periplus.lineage.v1 import lineage_pb2 as pb
from periplus.lineage.v1.lineage_pb2_grpc import LineageServiceStub
from periplus.types.v1 import step_pb2 as types
from periplus_common import auth, bus, rpc
from periplus_lineage.app import app
from periplus_lineage.settings import Settings


@dataclass(frozen=True)
class Client:
    stub: LineageServiceStub
    link: bus.Link
    metadata: tuple[tuple[str, str], ...]

    async def tell(self, events: Sequence[Message]) -> None:
        await self.link.publish([published(event) for event in events])

    async def run(self, run: str) -> pb.Run:
        response = await self.stub.GetRun(pb.GetRunRequest(project=PROJECT, run=run))
        return response.run

    async def run_when(self, run: str, wanted) -> pb.Run:
        for _ in range(200):
            try:
                found = await self.run(run)
            except grpc.aio.AioRpcError as error:
                if error.code() != grpc.StatusCode.NOT_FOUND:
                    raise
            else:
                if wanted(found):
                    return found
            await asyncio.sleep(0.05)
        raise AssertionError("it did not come")

    def watch(self, run: str, timeout: float = 20):
        return self.stub.WatchRun(
            pb.WatchRunRequest(project=PROJECT, run=run), metadata=self.metadata, timeout=timeout
        )


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Client]:
    token = settings.token.get_secret_value()
    async with (
        app(settings) as port,
        rpc.channel(f"127.0.0.1:{port}", token) as channel,
        bus.link(settings.nats_url.get_secret_value()) as link,
    ):
        yield Client(LineageServiceStub(channel), link, auth.metadata(token))


def finished(run: pb.Run) -> bool:
    return run.phase == types.RUN_PHASE_SUCCEEDED and all(
        step.phase >= types.STEP_PHASE_SUCCEEDED for step in run.steps
    )


async def test_what_was_published_is_read_back(settings: Settings) -> None:
    story = Story("r1").chain("ingest", "train")
    async with opened(settings) as client:
        await client.tell(story.events)
        run = await client.run_when("r1", lambda r: finished(r) and r.steps[1].outputs.artifacts[0].digest)
    assert [step.path for step in run.steps] == ["ingest", "train"]
    assert run.pipeline == "digits"
    assert run.step_count == 2
    assert run.steps[1].inputs.artifacts[0].digest == run.steps[0].outputs.artifacts[0].digest != ""


async def test_a_watch_ends_with_its_run_and_tells_every_step(settings: Settings) -> None:
    story = Story("r2").chain("ingest", "train")
    async with opened(settings) as client:
        watch = client.watch("r2")
        telling = asyncio.create_task(slowly(client, story.events))
        phases: dict[str, list[int]] = {}
        async for news in watch:
            for step in news.steps:
                phases.setdefault(step.path, []).append(step.phase)
        await telling
        assert news.run.phase == types.RUN_PHASE_SUCCEEDED
    assert all(told == sorted(told) for told in phases.values())
    assert {path: told[-1] for path, told in phases.items()} == {"ingest": 3, "train": 3}


async def slowly(client: Client, events: Sequence[Message]) -> None:
    for event in events:
        await client.tell([event])
        await asyncio.sleep(0.05)


async def test_an_unknown_run_is_not_found(settings: Settings) -> None:
    async with opened(settings) as client:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await client.run("nobody")
    assert refused.value.code() == grpc.StatusCode.NOT_FOUND
