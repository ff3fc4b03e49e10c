"""Reads that are bounded: a question whose answer would fill the memory is refused."""

from collections.abc import Sequence

from periplus_common.errors import Refused
from periplus_common.postgres import Database, Row

ROOM = 200_000  # rows


async def bounded(database: Database, sql: str, *arguments: object) -> Sequence[Row]:
    """The rows of a query. Raises `Refused` where there are too many."""
    async with database.connection() as connection:
        rows: Sequence[Row] = await connection.fetch(f"{sql} LIMIT {ROOM + 1}", *arguments)
    if len(rows) > ROOM:
        raise Refused(
            f"more than {ROOM:,} edges are met at once",
            reason="WALK_TOO_LARGE",
            fix="start from a step of a run, or walk with a smaller depth",
        )
    return rows
