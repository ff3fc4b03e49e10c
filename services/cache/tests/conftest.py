"""Fixtures of this folder's tests."""

from collections.abc import AsyncIterator

import pytest

from periplus_common import postgres
from periplus_local.stack.testing import Servers, database, embedded

__all__ = ["embedded"]


@pytest.fixture
async def dsn(embedded: Servers) -> AsyncIterator[str]:
    """A fresh database with this service's schema."""
    async with database(embedded) as fresh:
        await postgres.migrate(fresh, "periplus_common", "periplus_cache")
        yield fresh
