"""Postgres: one pool, and numbered SQL files applied in order under a lock."""

import hashlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from importlib.resources import files
from typing import Any

import asyncpg

from periplus_common.errors import Invalid, Refused, Unavailable
from periplus_common.unix_socket import postgres_dsn

Row = asyncpg.Record
Connection = asyncpg.pool.PoolConnectionProxy

# Raised when the server is down, restarting, demoted, out of connections or too slow, and for the one of two transactions
# that is rolled back so that the other can commit.
_UNAVAILABLE = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.TransactionRollbackError,
    asyncpg.LockNotAvailableError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # a connection that was lost between two messages
)
# Text in a proto is valid UTF-8; the one character of it that Postgres does not store is NUL.
_NUL = (asyncpg.CharacterNotInRepertoireError, asyncpg.UntranslatableCharacterError)


class Database:
    """A pool that raises our errors for asyncpg's: `Unavailable`, and `Invalid` for values that Postgres does not store."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """One connection, for reads and for single statements."""
        with _translated():
            async with self._pool.acquire() as connection:
                yield connection

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """One connection in one transaction: all of the block, or nothing."""
        async with self.connection() as connection, connection.transaction():
            yield connection


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except _NUL as error:
        raise Invalid("a text has a NUL character", reason="NUL_CHARACTER") from error
    except asyncpg.DataError as error:
        if type(error) is not asyncpg.DataError:  # raised by the server, for a mistake in our SQL
            raise
        # Raised by asyncpg before it sends an argument: too large for its column, or of another type.
        raise Invalid(f"a value does not fit: {error}", reason="VALUE_UNFIT") from error
    except _UNAVAILABLE as error:
        raise Unavailable(f"Postgres is unavailable: {str(error) or type(error).__name__}") from error


async def connect(dsn: str, **options: Any) -> asyncpg.Connection:
    """A connection of its own, with options of asyncpg. Raises asyncpg's errors, OSError, TimeoutError."""
    return await asyncpg.connect(postgres_dsn(dsn), **options)


@asynccontextmanager
async def database(dsn: str, *, size: int = 10) -> AsyncIterator[Database]:
    """A pool of up to `size` connections, none while idle. A statement is cancelled after 30 seconds."""
    with _translated():
        pool = await asyncpg.create_pool(
            postgres_dsn(dsn),
            min_size=0,
            max_size=size,
            max_inactive_connection_lifetime=20,  # seconds; each connection is a server process of some 10 MiB
            command_timeout=30,  # seconds
            reset=_no_reset,
        )
    try:
        yield Database(pool)
    finally:
        await pool.close()


async def _no_reset(connection: object) -> None:
    """Our code leaves no session state, and asyncpg's own reset is a round trip for each checkout."""


async def migrate(dsn: str, *packages: str) -> list[str]:
    """Apply each package's `migrations/*.sql` that was not applied to this schema, and return their names.

    Many may call at once: one applies, the others wait and find nothing to do. Raises `Unavailable`, and `Refused`
    where a file was changed after it was applied.
    """
    with _translated():
        return await _migrate(dsn, packages)


async def _migrate(dsn: str, packages: tuple[str, ...]) -> list[str]:
    connection = await connect(dsn)
    try:
        await connection.execute(
            "SET statement_timeout = 0"
        )  # the role's is for the service's own statements
        schema = await connection.fetchval("SELECT current_schema()")
        await connection.execute("SELECT pg_advisory_lock(hashtext($1))", f"migrate {schema}")
        await connection.execute(
            """
            CREATE TABLE IF NOT EXISTS migration (
                name text PRIMARY KEY, checksum text, applied_at timestamptz NOT NULL DEFAULT now()
            );
            ALTER TABLE migration ADD COLUMN IF NOT EXISTS checksum text; -- of before there were any
            """
        )
        checksums = {
            row["name"]: row["checksum"]
            for row in await connection.fetch("SELECT name, checksum FROM migration")
        }
        applied = []
        for name, sql in _migrations(packages):
            checksum = hashlib.sha256(sql.encode()).hexdigest()
            if name not in checksums:
                async with connection.transaction():
                    await connection.execute("SET LOCAL lock_timeout = '5s'")
                    await connection.execute(sql)
                    await connection.execute(
                        "INSERT INTO migration (name, checksum) VALUES ($1, $2)", name, checksum
                    )
                applied.append(name)
            elif checksums[name] != checksum:
                raise Refused(
                    f"the migration {name} was changed after it was applied to the schema {schema}: its tables are "
                    "not what the file says",
                    reason="MIGRATION_CHANGED",
                    fix="restore the file and put the change into a new one with the next number, or begin with an empty database",
                )
        return applied
    finally:
        await connection.close()


def _migrations(packages: tuple[str, ...]) -> list[tuple[str, str]]:
    """(package/file, SQL) of the packages in their order, each package's files by name."""
    return [
        (f"{package}/{script.name}", script.read_text())
        for package in packages
        for script in sorted(files(package).joinpath("migrations").iterdir(), key=lambda f: f.name)
        if script.name.endswith(".sql")
    ]
