"""The embedded servers for tests, on fresh data.

A process of its own, the host, runs the servers of a directory. Each user has a shared lock on a file in that directory, and
the host stops once there is none, even if users were killed.

    from periplus_local.stack.testing import embedded  # in a conftest.py: the fixture below
    async with servers(tmp_path) as embedded: ...      # or without the fixture
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import secrets
import subprocess
import sys
import time
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import asyncpg
import pytest

from periplus_local.stack import embedded as embedded_servers
from periplus_local.stack import postgres, s3
from periplus_local.stack.foreground import print_change
from periplus_local.stack.home import Home, write_private_json
from periplus_local.stack.supervisor import Supervisor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

_START_TIMEOUT_SECONDS, _STOP_TIMEOUT_SECONDS = 90.0, 30.0
_POLL_SECONDS = 0.02
_USERS_POLL_SECONDS = 0.25


@dataclass(frozen=True)
class S3Settings:
    """What a client of the store needs; `endpoint` is host:port over plain HTTP."""

    endpoint: str
    access_key: str
    secret_key: str
    bucket: str


@dataclass(frozen=True)
class Servers:
    """Three running servers. `dsn` is the superuser's for the database postgres, `nats_url` the administrator's."""

    dsn: str
    nats_url: str
    s3: S3Settings
    service_dsns: dict[str, str]
    """One per service, each with a role and a schema of its own, shared by the session."""
    service_nats_urls: dict[str, str]
    """One per service, with its rights: see `nats_rights`."""
    subscriber_url: str
    service_s3: dict[str, S3Settings]
    """The store with the keys of each process that has some, and its rights."""


@asynccontextmanager
async def servers(directory: Path) -> AsyncIterator[Servers]:
    """The servers with their data in `directory`; started if they do not run.

    The last user waits until they have stopped, so that the directory can be removed.
    """
    with _use(directory) as found:
        yield found
    await asyncio.to_thread(_wait_until_stopped, directory)


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """The session's servers; each worker of pytest-xdist has its own, as a service's consumer has one name."""
    with _use(tmp_path_factory.getbasetemp() / "servers") as found:
        yield found


@asynccontextmanager
async def database(running: Servers) -> AsyncIterator[str]:
    """The DSN of a new, empty database, dropped at the end."""
    name = f"test_{secrets.token_hex(6)}"
    administration = await asyncpg.connect(running.dsn)
    try:
        await administration.execute(f"CREATE DATABASE {name} STRATEGY file_copy")
        try:
            yield running.dsn.rsplit("/", 1)[0] + f"/{name}"
        finally:
            await administration.execute(f"DROP DATABASE {name} WITH (FORCE)")
    finally:
        await administration.close()


@contextmanager
def _use(directory: Path) -> Iterator[Servers]:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (directory / "users").open("a") as users:
        fcntl.flock(users, fcntl.LOCK_SH)
        with (directory / "start").open("a") as start:
            fcntl.flock(start, fcntl.LOCK_EX)
            if not _has_host(directory):
                _start_host(directory)
        found = json.loads((directory / "servers.json").read_text(encoding="utf-8"))
        keys = {name: S3Settings(**settings) for name, settings in found["service_s3"].items()}
        yield Servers(**(found | {"s3": S3Settings(**found["s3"]), "service_s3": keys}))


def _has_host(directory: Path) -> bool:
    """Whether there is a host: it has an exclusive lock on a file until it ends."""
    with (directory / "host").open("a") as host:
        try:
            fcntl.flock(host, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def _wait_until_stopped(directory: Path) -> None:
    """Wait until the host has ended; not for long, as it does not while there is another user."""
    limit = time.monotonic() + _STOP_TIMEOUT_SECONDS
    while _has_host(directory) and time.monotonic() < limit:
        time.sleep(_POLL_SECONDS)


def _start_host(directory: Path) -> None:
    """Start a host and wait until its servers are ready."""
    settings = directory / "servers.json"
    settings.unlink(missing_ok=True)
    log = directory / "host.log"
    with log.open("ab") as output:
        host = subprocess.Popen(  # noqa: S603 - this very module
            [sys.executable, "-m", __name__, str(directory)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    limit = time.monotonic() + _START_TIMEOUT_SECONDS
    while not settings.exists():
        if host.poll() is not None or time.monotonic() > limit:
            host.kill()
            raise RuntimeError(f"the test servers did not start:\n{log.read_text()}")
        time.sleep(_POLL_SECONDS)


async def _serve(directory: Path) -> None:
    """Run the servers until no user has the shared lock."""
    home = Home(directory / "home")
    home.create()
    chosen = embedded_servers.embedded(home, tls=False)
    with (directory / "users").open("a") as users, (directory / "host").open("a") as host:
        fcntl.flock(host, fcntl.LOCK_EX)
        specs = embedded_servers.specs(home, chosen, durable=False)
        async with Supervisor(home, specs, print_change):
            write_private_json(directory / "servers.json", asdict(_settings(chosen)))
            while not _unused(users):  # noqa: ASYNC110 - a file lock has no event
                await asyncio.sleep(_USERS_POLL_SECONDS)


def _unused(users: TextIO) -> bool:
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _settings(chosen: embedded_servers.Embedded) -> Servers:
    store = chosen.s3
    return Servers(
        dsn=chosen.postgres.dsn(database=postgres.SUPERUSER),
        nats_url=chosen.nats.url,
        subscriber_url=chosen.nats.subscriber_url,
        s3=S3Settings(store.endpoint, store.access_key, store.secret_key, s3.BUCKET),
        service_s3={
            name: S3Settings(store.endpoint, *keys, s3.BUCKET) for name, keys in store.identities.items()
        },
        service_dsns={role: chosen.postgres.dsn(role) for role in chosen.postgres.roles},
        service_nats_urls={name: chosen.nats.url_of(name) for name in chosen.nats.services},
    )


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1])))
