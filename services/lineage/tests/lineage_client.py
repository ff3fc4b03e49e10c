"""The service in this process, with a client that publishes events to it and queries it."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field

import asyncpg
import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from run_events import PROJECT, cloud_event

from periplus.lineage.v1 import lineage_pb2 as pb
from periplus.lineage.v1.lineage_pb2_grpc import LineageServiceStub
from periplus_common import auth, rpc
from periplus_common.bus import Broker
from periplus_lineage.app import app
from periplus_lineage.settings import Settings


@dataclass(frozen=True)
class Client:
    stub: LineageServiceStub
    broker: Broker
    metadata: tuple[tuple[str, str], ...]
    dsn: str
    salt: str = field(default_factory=lambda: uuid.uuid4().hex)

    async def publish(self, events: Sequence[Message]) -> None:
        await self.broker.publish_events([cloud_event(event, self.salt) for event in events])

    async def get_run(self, run: str) -> pb.Run:
        response = await self.stub.GetRun(pb.GetRunRequest(project=PROJECT, run=run))
        return response.run

    async def wait_for_run(self, run: str, condition) -> pb.Run:
        for _ in range(1200):
            try:
                found = await self.get_run(run)
            except grpc.aio.AioRpcError as error:
                if error.code() != grpc.StatusCode.NOT_FOUND:
                    raise
            else:
                if condition(found):
                    return found
            await asyncio.sleep(0.05)
        raise AssertionError(f"the run {run} did not reach the expected state")

    def watch(self, run: str, timeout: float = 20, wait: int = 60):
        return self.stub.WatchRun(
            pb.WatchRunRequest(project=PROJECT, run=run, wait=Duration(seconds=wait)),
            metadata=self.metadata,
            timeout=timeout,
        )

    async def listener_count(self) -> int:
        """How many connections to the database listen for notifications."""
        connection = await asyncpg.connect(self.dsn)
        try:
            return await connection.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
                " AND query = 'SELECT'"
            )
        finally:
            await connection.close()


@asynccontextmanager
async def running(settings: Settings, publisher: Broker | None = None) -> AsyncIterator[Client]:
    """The service. `publisher` is for a service that can not reach NATS itself."""
    token = settings.token.get_secret_value()
    async with (
        nullcontext(publisher) if publisher else Broker(settings.nats_url.get_secret_value()) as broker,
        app(settings) as port,
        rpc.channel(f"127.0.0.1:{port}", token) as channel,
    ):
        yield Client(
            LineageServiceStub(channel),
            broker,
            auth.metadata(token),
            settings.postgres_dsn.get_secret_value(),
        )
