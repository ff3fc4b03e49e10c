"""Postgres: one pool, and numbered SQL files applied in order under a lock."""

import hashlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from importlib.resources import files

import asyncpg

from periplus_common.errors import Invalid, Refused, Unavailable

Row = asyncpg.Record
Connection = asyncpg.pool.PoolConnectionProxy

# What a driver raises when the server is away, restarting, no longer the first, out of places, or too slow, and
# when it gave up one of two transactions for the other's sake.
_AWAY = (
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
    asyncpg.InternalClientError,  # a connection that was cut between two messages, and does not know it yet
)
# Text that came over a wire is UTF-8; what is left is the one character that Postgres does not keep.
_NUL = (asyncpg.CharacterNotInRepertoireError, asyncpg.UntranslatableCharacterError)


class Database:
    """A pool that tells the driver's failures in our kinds: `Unavailable`, and `Invalid` for text it can not keep."""

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
        raise Invalid("a text holds a NUL character", reason="NUL_CHARACTER") from error
    except asyncpg.DataError as error:
        if type(error) is not asyncpg.DataError:  # what the server says of a statement: our own mistake
            raise
        # What the driver says of an argument before it sends it: too large for its column, or no text.
        raise Invalid(f"a value does not fit: {error}", reason="VALUE_UNFIT") from error
    except _AWAY as error:
        raise Unavailable(f"Postgres is away: {str(error) or type(error).__name__}") from error


@asynccontextmanager
async def database(dsn: str, *, size: int = 10) -> AsyncIterator[Database]:
    """Open a pool of up to `size` connections, none while idle. A statement is given up after 30 seconds."""
    with _translated():
        pool = await asyncpg.create_pool(
            dsn,
            min_size=0,
            max_size=size,
            max_inactive_connection_lifetime=20,  # a server process each, of some 10 MiB
            command_timeout=30,
            reset=_keep,
        )
    try:
        yield Database(pool)
    finally:
        await pool.close()


async def _keep(connection: object) -> None:
    """No reset: our code holds no session state, and the query would cost a round trip a checkout."""


async def migrate(dsn: str, *packages: str) -> list[str]:
    """Apply each package's `migrations/*.sql` that was not applied to this schema, and return their names.

    Many may call at once: one applies, the others wait and find nothing to do. Raises `Unavailable`, and `Refused`
    where a file was changed after it was applied.
    """
    with _translated():
        return await _migrate(dsn, packages)


async def _migrate(dsn: str, packages: tuple[str, ...]) -> list[str]:
    connection = await asyncpg.connect(dsn)
    try:
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
        for name, sql in _scripts(packages):
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


def _scripts(packages: tuple[str, ...]) -> list[tuple[str, str]]:
    """The packages' scripts as (package/file, text), a package after the other, each in order of name."""
    return [
        (f"{package}/{script.name}", script.read_text())
        for package in packages
        for script in sorted(files(package).joinpath("migrations").iterdir(), key=lambda f: f.name)
        if script.name.endswith(".sql")
    ]
