"""What the driver raises, told in our kinds."""

import pytest

from periplus_common import postgres
from periplus_common.errors import Invalid
from periplus_local.stack.testing import Servers, database, embedded

__all__ = ["embedded"]


async def test_a_nul_character_is_the_callers_mistake(embedded: Servers) -> None:
    async with (
        database(embedded) as dsn,
        postgres.database(dsn) as opened,
        opened.connection() as connection,
    ):
        assert await connection.fetchval("SELECT $1::text", "a\n") == "a\n"
    async with database(embedded) as dsn, postgres.database(dsn) as opened:
        with pytest.raises(Invalid, match="NUL"):
            async with opened.connection() as connection:
                await connection.fetchval("SELECT $1::text", "a\0")
