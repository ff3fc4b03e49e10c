"""Fixtures: a database, a local Argo, and fakes of the cache and the snapshotter."""

import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # what the tests of this folder share is found beside them

from dispatcher_harness import Harness, opened
from fakes import MemoryCache, MemorySnapshotter

from periplus_common import postgres
from periplus_local.argo.testing import Client, local_argo
from periplus_local.stack.testing import Servers, database, embedded

__all__ = ["embedded"]


@pytest.fixture
async def dsn(embedded: Servers) -> AsyncIterator[str]:
    """An empty database with the dispatcher's tables."""
    async with database(embedded) as fresh:
        await postgres.migrate(fresh, "periplus_common", "periplus_dispatcher")
        yield fresh


@pytest.fixture(scope="session")
def local(embedded: Servers) -> Iterator[Client]:
    """The local Argo, with the session's object store."""
    s3 = embedded.s3
    with local_argo(
        slots=4, grace_seconds=1, s3_endpoint=s3.endpoint, s3_access_key=s3.access_key,
        s3_secret_key=s3.secret_key, s3_bucket=s3.bucket,
    ) as client:  # fmt: skip
        yield client


@pytest.fixture
async def harness(dsn: str, local: Client, embedded: Servers) -> AsyncIterator[Harness]:
    """A dispatcher on a database of its own and the local Argo, with a cache in memory."""
    async with opened(dsn, local, embedded, MemoryCache(), MemorySnapshotter()) as harness:
        yield harness
