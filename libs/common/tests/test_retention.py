"""Old rows go in small batches, and nothing that is young, locked or still referred to does."""

import asyncio
import logging
from collections.abc import AsyncIterator
from datetime import timedelta

import asyncpg
import pytest
from pydantic import TypeAdapter, ValidationError

from periplus_common import retention
from periplus_common.retention import KeepFor, Retention, delete_expired

DAY = timedelta(days=1)


@pytest.fixture
async def connection(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    """A table of 100 attempts, one a day back from now, and references to some."""
    opened = await asyncpg.connect(dsn)
    await opened.execute(
        """
        CREATE TABLE attempt (id int PRIMARY KEY, at timestamptz NOT NULL);
        CREATE TABLE reference (attempt int NOT NULL);
        INSERT INTO attempt SELECT i, now() - i * interval '1 day' - interval '1 hour' FROM generate_series(0, 99) AS i;
        """
    )
    yield opened
    await opened.close()


async def ids(connection: asyncpg.Connection) -> list[int]:
    return [row["id"] for row in await connection.fetch("SELECT id FROM attempt ORDER BY id")]


async def only_left(connection: asyncpg.Connection, count: int) -> None:
    async with asyncio.timeout(60):
        while len(await ids(connection)) > count:  # noqa: ASYNC110 - a table has no event
            await asyncio.sleep(0.02)


async def test_rows_older_than_the_setting_are_deleted_and_the_others_stay(
    dsn: str, connection: asyncpg.Connection, caplog
):
    with caplog.at_level(logging.INFO):
        deleted = await delete_expired(dsn, [Retention.older_than("attempt", "at", 30 * DAY)])
    assert deleted == {"attempt": 70}
    assert await ids(connection) == list(range(30))
    assert "deleted 70 rows of attempt that were older than 30 days" in caplog.text


async def test_a_table_that_is_kept_for_ever_is_not_touched(dsn: str, connection: asyncpg.Connection):
    assert await delete_expired(dsn, [Retention.older_than("attempt", "at", None)]) == {}
    assert len(await ids(connection)) == 100


async def test_rows_that_are_still_referred_to_stay(dsn: str, connection: asyncpg.Connection):
    await connection.execute("INSERT INTO reference VALUES (50), (60)")
    referred = "EXISTS (SELECT FROM reference WHERE reference.attempt = candidate.id)"
    deleted = await delete_expired(dsn, [Retention.older_than("attempt", "at", 30 * DAY, unless=referred)])
    assert deleted == {"attempt": 68}
    assert await ids(connection) == [*range(30), 50, 60]


async def test_rows_go_in_batches_each_its_own_transaction(dsn: str, connection: asyncpg.Connection):
    await connection.execute(
        """
        CREATE TABLE batch (count int, transaction xid8);
        CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            INSERT INTO batch SELECT count(*), pg_current_xact_id() FROM old; RETURN NULL; END $$;
        CREATE TRIGGER note AFTER DELETE ON attempt REFERENCING OLD TABLE AS old
            FOR EACH STATEMENT EXECUTE FUNCTION note();
        """
    )
    deleted = await delete_expired(dsn, [Retention.older_than("attempt", "at", 30 * DAY)], batch_rows=32)
    assert deleted == {"attempt": 70}
    rows = await connection.fetch("SELECT count, transaction FROM batch ORDER BY transaction")
    assert [row["count"] for row in rows] == [32, 32, 6]
    assert len({row["transaction"] for row in rows}) == 3


async def test_rows_that_others_have_locked_are_skipped_and_not_waited_for(
    dsn: str, connection: asyncpg.Connection
):
    async with connection.transaction():
        await connection.execute("SELECT FROM attempt WHERE id = 40 FOR UPDATE")
        async with asyncio.timeout(1.5):  # less than the lock's time-out
            deleted = await delete_expired(dsn, [Retention.older_than("attempt", "at", 30 * DAY)])
    assert deleted == {"attempt": 69}
    assert await ids(connection) == [*range(30), 40]


async def test_one_process_of_a_schema_deletes_at_a_time(dsn: str, connection: asyncpg.Connection):
    await connection.execute("SELECT pg_advisory_lock(hashtext('retention ' || current_schema()))")
    rules = [Retention.older_than("attempt", "at", 30 * DAY)]
    assert await delete_expired(dsn, rules) == {}
    assert len(await ids(connection)) == 100
    await connection.execute("SELECT pg_advisory_unlock_all()")
    assert await delete_expired(dsn, rules) == {"attempt": 70}
    assert await delete_expired(dsn, rules) == {"attempt": 0}  # the lock was given back


async def test_the_background_task_deletes_again_and_again(dsn: str, connection: asyncpg.Connection):
    rules = [Retention.older_than("attempt", "at", 30 * DAY)]
    async with retention.enforcing(dsn, rules, interval=timedelta(milliseconds=50)):
        await only_left(connection, 30)
        await connection.execute("INSERT INTO attempt VALUES (1000, now() - interval '31 days')")
        await only_left(connection, 30)


async def test_a_pass_that_fails_is_logged_and_ends_nothing(
    dsn: str, connection: asyncpg.Connection, caplog, until
):
    rules = [Retention.older_than("nowhere", "at", DAY)]
    async with retention.enforcing(dsn, rules, interval=timedelta(milliseconds=20)):
        await until(lambda: caplog.text.count('relation "nowhere" does not exist') >= 2)
    with pytest.raises(asyncpg.UndefinedTableError):
        await delete_expired(dsn, rules)


@pytest.mark.parametrize(
    ("text", "value"), [("forever", None), ("Forever ", None), ("1", DAY), (90, 90 * DAY)]
)
def test_a_setting_is_a_number_of_days_or_forever(text: object, value: timedelta | None):
    assert TypeAdapter(KeepFor).validate_python(text) == value


@pytest.mark.parametrize("text", ["", "0", "-1", "1.5", "a week", "99999"])
def test_any_other_setting_is_refused_with_what_is_allowed(text: str):
    with pytest.raises(ValidationError, match="neither a number of days"):
        TypeAdapter(KeepFor).validate_python(text)
