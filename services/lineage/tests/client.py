"""The whole service in this process, and somebody who publishes to it and asks it."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field

import asyncpg
import grpc
from google.protobuf.message import Message
from story import PROJECT, published

from periplus.lineage.v1 import lineage_pb2 as pb
from periplus.lineage.v1.lineage_pb2_grpc import LineageServiceStub
from periplus_common import auth, bus, rpc
from periplus_lineage.app import app
from periplus_lineage.settings import Settings


@dataclass(frozen=True)
class Client:
    stub: LineageServiceStub
    link: bus.Link
    metadata: tuple[tuple[str, str], ...]
    dsn: str
    salt: str = field(default_factory=lambda: uuid.uuid4().hex)

    async def tell(self, events: Sequence[Message]) -> None:
        await self.link.publish([published(event, self.salt) for event in events])

    async def run(self, run: str) -> pb.Run:
        response = await self.stub.GetRun(pb.GetRunRequest(project=PROJECT, run=run))
        return response.run

    async def listeners(self) -> int:
        """How many connections to the database listen for notices."""
        connection = await asyncpg.connect(self.dsn)
        try:
            return await connection.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
                " AND query = 'SELECT'"
            )
        finally:
            await connection.close()

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
async def opened(settings: Settings, told_by: bus.Link | None = None) -> AsyncIterator[Client]:
    """The service; `told_by` is for those whose service does not reach NATS."""
    token = settings.token.get_secret_value()
    async with (
        nullcontext(told_by) if told_by else bus.link(settings.nats_url.get_secret_value()) as link,
        app(settings) as port,
        rpc.channel(f"127.0.0.1:{port}", token) as channel,
    ):
        yield Client(
            LineageServiceStub(channel), link, auth.metadata(token), settings.postgres_dsn.get_secret_value()
        )
