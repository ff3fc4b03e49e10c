"""A database and streams of their own for each test, on the embedded servers."""

import sys
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import nats
import pytest

from periplus_common import postgres
from periplus_common.streams import declare_streams
from periplus_lineage.settings import Settings
from periplus_local.stack.testing import Servers, database, embedded

__all__ = ["embedded"]

# The tests are not a package: modules that they share are imported from this folder.
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
async def dsn(embedded: Servers) -> AsyncIterator[str]:
    """A database with lineage's tables, which are empty."""
    async with database(embedded) as fresh:
        await postgres.migrate(fresh, "periplus_lineage")
        yield fresh


@pytest.fixture
async def db(dsn: str) -> AsyncIterator[postgres.Database]:
    async with postgres.database(dsn) as opened:
        yield opened


@pytest.fixture
async def streams(embedded: Servers) -> str:
    """URL of NATS, with empty streams and without consumers."""
    await declare_streams(embedded.nats_url)
    client = await nats.connect(embedded.nats_url)
    stream = client.jetstream()
    for name in ("DISPATCHER", "CACHE", "SNAPSHOTTER", "DEAD"):
        for consumer in await stream.consumers_info(name):
            await stream.delete_consumer(name, consumer.name)
        await stream.purge_stream(name)
    await client.close()
    return embedded.nats_url


@pytest.fixture
def settings(embedded: Servers, dsn: str, streams: str) -> Settings:
    return Settings(
        postgres_dsn=dsn,
        nats_url=streams,
        grpc_address="127.0.0.1:0",
        token=uuid.uuid4().hex,
        s3_endpoint="s3.test:9000",
        s3_bucket="artifacts",
    )
