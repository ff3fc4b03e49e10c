"""The pool, the migrations, and our errors for asyncpg's."""

import asyncio
import sys
from pathlib import Path

import asyncpg
import pytest

from periplus_common import postgres
from periplus_common.errors import Invalid, Refused, Unavailable
from periplus_local.stack.testing import Servers, database


@pytest.fixture
def script(tmp_path: Path, monkeypatch):
    """A package with migrations, which a test may add to."""
    package = tmp_path / "package_of_a_test"
    (package / "migrations").mkdir(parents=True)
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, package.name, raising=False)

    def write(name: str, sql: str) -> str:
        (package / "migrations" / name).write_text(sql)
        return package.name

    yield write
    sys.modules.pop(package.name, None)


async def test_scripts_are_applied_once_in_order_and_new_ones_later(embedded: Servers, script):
    script("0002_b.sql", "INSERT INTO a VALUES (2)")
    package = script("0001_a.sql", "CREATE TABLE a (n int); INSERT INTO a VALUES (1)")
    script("notes.txt", "no SQL")
    async with database(embedded) as dsn:
        first = await postgres.migrate(dsn, "periplus_common", package)
        assert first == [
            "periplus_common/0001_outbox.sql",
            "package_of_a_test/0001_a.sql",
            "package_of_a_test/0002_b.sql",
        ]
        assert await postgres.migrate(dsn, "periplus_common", package) == []
        script("0003_c.sql", "INSERT INTO a VALUES (3)")
        assert await postgres.migrate(dsn, package) == ["package_of_a_test/0003_c.sql"]
        async with postgres.database(dsn) as opened, opened.connection() as connection:
            assert await connection.fetchval("SELECT array_agg(n) FROM a") == [1, 2, 3]


async def test_many_that_migrate_at_once_apply_each_script_once(embedded: Servers, script):
    script("0001_a.sql", "CREATE TABLE a (n int); SELECT pg_sleep(0.1)")
    package = script("0002_b.sql", "INSERT INTO a VALUES (1)")
    async with database(embedded) as dsn:
        applied = await asyncio.gather(*(postgres.migrate(dsn, package) for _ in range(5)))
        async with postgres.database(dsn) as opened, opened.connection() as connection:
            assert await connection.fetchval("SELECT count(*) FROM a") == 1
    assert sorted(map(len, applied)) == [0, 0, 0, 0, 2]


async def test_a_script_that_fails_leaves_nothing_and_is_tried_again(embedded: Servers, script):
    package = script("0001_a.sql", "CREATE TABLE a (n int); SELECT 1/0")
    async with database(embedded) as dsn:
        with pytest.raises(asyncpg.DivisionByZeroError):
            await postgres.migrate(dsn, package)
        script("0001_a.sql", "CREATE TABLE a (n int)")
        assert await postgres.migrate(dsn, package) == ["package_of_a_test/0001_a.sql"]


async def test_a_script_that_was_changed_after_it_was_applied_is_refused_by_name(embedded: Servers, script):
    script("0001_a.sql", "CREATE TABLE a (n int)")
    package = script("0002_b.sql", "INSERT INTO a VALUES (1)")
    async with database(embedded) as dsn:
        await postgres.migrate(dsn, package)
        script("0001_a.sql", "CREATE TABLE a (n bigint)")
        script("0003_c.sql", "INSERT INTO a VALUES (2)")
        with pytest.raises(Refused, match=r"package_of_a_test/0001_a\.sql was changed") as caught:
            await postgres.migrate(dsn, package)
        assert "a new one" in caught.value.fix
        script("0001_a.sql", "CREATE TABLE a (n int)")
        assert await postgres.migrate(dsn, package) == ["package_of_a_test/0003_c.sql"]


async def test_a_transaction_is_all_or_nothing(dsn: str):
    async with postgres.database(dsn) as opened:
        async with opened.transaction() as connection:
            await connection.execute("CREATE TABLE a (n int)")
        for error in (KeyError, asyncio.CancelledError):
            with pytest.raises(error):  # noqa: PT012
                async with opened.transaction() as connection:
                    await connection.execute("INSERT INTO a VALUES (1)")
                    raise error
        async with opened.connection() as connection:
            assert await connection.fetchval("SELECT count(*) FROM a") == 0


async def test_a_server_that_is_down_is_unavailable(dsn: str, gates):
    gate, through = await gates(dsn)
    async with postgres.database(through) as opened:
        with pytest.raises(Unavailable, match="Postgres is unavailable"):  # noqa: PT012
            async with opened.connection() as connection:
                await gate.shut()
                await connection.fetchval("SELECT 1")
        with pytest.raises(Unavailable):
            async with opened.connection() as connection:
                await connection.fetchval("SELECT 1")
        await gate.open()
        async with opened.connection() as connection:
            assert await connection.fetchval("SELECT 1") == 1
        await gate.shut()
    async with postgres.database(through) as opened:  # which opens no connection yet
        with pytest.raises(Unavailable):
            async with opened.connection():
                pass
    with pytest.raises(Unavailable):
        await postgres.migrate(through, "periplus_common")


async def fails(dsn: str, sql: str, *arguments: object) -> None:
    async with postgres.database(dsn) as opened, opened.connection() as connection:
        await connection.fetchval(sql, *arguments)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT pg_terminate_backend(pg_backend_pid())",
        "SELECT pg_cancel_backend(pg_backend_pid()), pg_sleep(10)",
        *(
            f"DO $$ BEGIN RAISE 'so it is' USING ERRCODE = '{state}'; END $$"
            for state in ("57014", "57P01", "57P03", "53100", "53200", "53300", "40001", "40P01", "55P03",
                          "25006", "08006")
        ),
    ],
)  # fmt: skip
async def test_what_may_succeed_later_is_unavailable(dsn: str, sql: str):
    with pytest.raises(Unavailable):
        await fails(dsn, sql)


async def test_a_statement_that_takes_too_long_is_unavailable(dsn: str):
    async with postgres.database(dsn) as opened:
        with pytest.raises(Unavailable, match="TimeoutError"):
            async with opened.connection() as connection:
                await connection.fetchval("SELECT pg_sleep(10)", timeout=0.1)
        async with opened.connection() as connection:
            assert await connection.fetchval("SELECT 1") == 1


async def test_a_nul_character_is_invalid(dsn: str):
    await fails(dsn, "SELECT $1::text", "a\n")
    for sql, value in (
        ("SELECT $1::text", "a\0"),
        ("SELECT $1::jsonb", '{"a": "\\u0000"}'),
    ):
        with pytest.raises(Invalid, match="NUL"):
            await fails(dsn, sql, value)


@pytest.mark.parametrize(
    ("sql", "value"), [("SELECT $1::int", 1 << 40), ("SELECT $1::text", "\udc80"), ("SELECT $1::int", "one")]
)
async def test_a_value_that_does_not_fit_its_column_is_invalid(dsn: str, sql: str, value: object):
    with pytest.raises(Invalid, match="does not fit"):
        await fails(dsn, sql, value)


async def test_an_error_in_our_sql_passes_through(dsn: str):
    with pytest.raises(asyncpg.UndefinedTableError):
        await fails(dsn, "SELECT * FROM nowhere")
