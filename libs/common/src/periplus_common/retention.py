"""Deletion of rows that are older than a setting, in the background and in small batches.

A service declares what may go, table by table:

    Retention.older_than("attempt", "finished_at", settings.keep_attempts, unless="EXISTS (SELECT …)")

and opens `enforcing(dsn, retentions)` in its app. Of many replicas one deletes at a time.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Self

import asyncpg
from pydantic import BeforeValidator

from periplus_common import postgres, telemetry
from periplus_common.postgres import Connection
from periplus_common.runtime import background_task

log = logging.getLogger(__name__)

_LOCK_TIMEOUT = "2s"
_STATEMENT_TIMEOUT_SECONDS = 60

_deleted_rows = telemetry.counter(
    "periplus.retention.deleted_rows",
    unit="{row}",
    description="Rows that were deleted because they were older than their setting.",
    attributes=("db.collection.name",),
)


def _parse(value: object) -> object:
    if value is None or isinstance(value, timedelta):
        return value
    text = str(value).strip().lower()
    if text == "forever":
        return None
    if not text.isdecimal() or not 1 <= int(text) <= 36_500:
        raise ValueError(f"{value!r} is neither a number of days (1 to 36500) nor `forever`")
    return timedelta(days=int(text))


KeepFor = Annotated[timedelta | None, BeforeValidator(_parse)]
"""The type of a setting: a number of days, or `forever` (None)."""


@dataclass(frozen=True)
class Retention:
    """Which rows of a table may be deleted.

    `delete_sql` deletes at most `$2::int` rows that are older than `$1::interval`, as one statement. It skips rows that
    others have locked, and rows that something live still refers to. Its command tag (`DELETE 17`) counts rows of this
    table: fewer than `$2` mean that none is left for now.
    """

    table: str
    keep_for: timedelta | None
    """None: rows are never deleted."""
    delete_sql: str

    @classmethod
    def older_than(
        cls, table: str, column: str, keep_for: timedelta | None, *, unless: str = "false"
    ) -> Self:
        """Rows whose `column`, a timestamptz, is older than `keep_for`, and for which the SQL condition `unless` is false.

        `unless` names the row `candidate`. `column` needs an index. Table, column and condition are SQL of our own.
        """
        sql = f"""
            DELETE FROM {table} WHERE ctid = ANY (ARRAY (
                SELECT candidate.ctid FROM {table} AS candidate
                WHERE candidate.{column} < now() - $1::interval AND NOT ({unless})
                ORDER BY candidate.{column} LIMIT $2::int FOR UPDATE SKIP LOCKED
            ))
            """  # noqa: S608
        return cls(table, keep_for, sql)


@asynccontextmanager
async def enforcing(
    dsn: str,
    retentions: Iterable[Retention],
    *,
    interval: timedelta = timedelta(hours=1),
    batch_rows: int = 1000,
    batch_pause: timedelta = timedelta(milliseconds=50),
) -> AsyncIterator[None]:
    """Delete what is too old once every `interval` for as long as the block is open, starting after the first one.

    A pass that fails is logged and tried again at the next interval: retention never ends a service.
    """
    limited = tuple(retention for retention in retentions if retention.keep_for is not None)

    async def run() -> None:
        while True:
            await asyncio.sleep(interval.total_seconds())
            try:
                await delete_expired(dsn, limited, batch_rows=batch_rows, batch_pause=batch_pause)
            except (OSError, TimeoutError, asyncpg.PostgresConnectionError, asyncpg.InterfaceError) as error:
                log.warning("old rows are not deleted: %s", str(error) or type(error).__name__)
            except asyncpg.PostgresError:
                log.exception("old rows are not deleted")

    if not limited:
        yield
        return
    async with background_task(run()):
        yield


async def delete_expired(
    dsn: str,
    retentions: Iterable[Retention],
    *,
    batch_rows: int = 1000,
    batch_pause: timedelta = timedelta(0),
) -> dict[str, int]:
    """One pass over the tables in order: how many rows of each were deleted.

    Nothing where another process of this schema is at it. Raises asyncpg's errors, OSError, TimeoutError.
    """
    connection = await postgres.connect(
        dsn,
        timeout=10,
        command_timeout=_STATEMENT_TIMEOUT_SECONDS,
        server_settings={"lock_timeout": _LOCK_TIMEOUT},
    )
    try:
        lock = "hashtext('retention ' || current_schema())"
        if not await connection.fetchval(f"SELECT pg_try_advisory_lock({lock})"):
            return {}
        deleted = {
            retention.table: await _delete(connection, retention, batch_rows, batch_pause)
            for retention in retentions
            if retention.keep_for is not None
        }
        # The server sees our end only some time later.
        await connection.execute(f"SELECT pg_advisory_unlock({lock})")
        return deleted
    finally:
        connection.terminate()  # which unlocks; a server that hangs must not hold up our end


async def _delete(
    connection: asyncpg.Connection | Connection, retention: Retention, batch_rows: int, pause: timedelta
) -> int:
    """Each batch is a transaction of its own, and waits a little for others to get at the table."""
    started, deleted = time.monotonic(), 0
    while True:
        tag = await connection.execute(retention.delete_sql, retention.keep_for, batch_rows)
        count = int(tag.rpartition(" ")[2])
        deleted += count
        _deleted_rows.add(count, {"db.collection.name": retention.table})
        if count < batch_rows:
            break
        await asyncio.sleep(pause.total_seconds())
    if deleted:
        log.info(
            "deleted %d rows of %s that were older than %s, in %.1f s",
            deleted, retention.table, retention.keep_for, time.monotonic() - started,
        )  # fmt: skip
    return deleted
