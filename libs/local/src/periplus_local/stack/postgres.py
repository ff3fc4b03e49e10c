"""The embedded PostgreSQL: its data directory, its settings, and a role and schema per service."""

from __future__ import annotations

import asyncio
import os
import shutil
from dataclasses import dataclass, field
from functools import partial
from signal import SIGINT
from typing import TYPE_CHECKING

import asyncpg
import psutil

from periplus_local.stack import child, postgres_programs
from periplus_local.stack.home import write_private
from periplus_local.stack.part import NotReadyError, Part
from periplus_local.stack.ports import LOOPBACK

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from periplus_local.stack.home import Home
    from periplus_local.stack.postgres_programs import Programs

SUPERUSER = "postgres"
DATABASE = "periplus"


class InitialiseError(Exception):
    """The data directory could not be made; why is in the log."""


@dataclass(frozen=True)
class Postgres:
    """The server's port, the superuser's password, and each service's."""

    port: int
    password: str
    roles: Mapping[str, str] = field(default_factory=dict)
    """Password by role. Each role owns the schema of its own name and sees no other."""

    def dsn(self, role: str = SUPERUSER, database: str = DATABASE) -> str:
        """Where to connect as a role, credentials included."""
        password = self.password if role == SUPERUSER else self.roles[role]
        return f"postgresql://{role}:{password}@{LOOPBACK}:{self.port}/{database}"


def part(home: Home, server: Postgres, *, durable: bool = True) -> Part:
    """PostgreSQL as a part of the stack. Tests that need no disk may ask for less."""
    programs = postgres_programs.find()
    data = home.data / "postgres"
    return Part(
        name="postgres",
        command=(str(programs.postgres), "-D", programs.data_argument(data)),
        directory=data,
        prepare=partial(_prepare, home, server, programs, durable),
        ready=partial(_answers, server),
        provision=partial(provision, server),
        address=f"{LOOPBACK}:{server.port}",
        user=programs.user,
        stop_signal=SIGINT,  # ends sessions and writes a checkpoint; SIGTERM would wait for them
        grace=15.0,
        temporary=programs.temporary,
    )


async def provision(server: Postgres) -> None:
    """Make the database, and per service a role with a schema. Repeatable. Raises asyncpg's."""
    connection = await asyncpg.connect(server.dsn(database=SUPERUSER), timeout=5)
    try:
        if not await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", DATABASE):
            await connection.execute(f"CREATE DATABASE {DATABASE}")
            await connection.execute(f"REVOKE ALL ON DATABASE {DATABASE} FROM PUBLIC")
    finally:
        await connection.close()
    connection = await asyncpg.connect(server.dsn(), timeout=5)
    try:
        await connection.execute("REVOKE ALL ON SCHEMA public FROM PUBLIC")
        for role, password in server.roles.items():
            await _provision_role(connection, role, password)
    finally:
        await connection.close()


async def _provision_role(connection: asyncpg.Connection[asyncpg.Record], role: str, password: str) -> None:
    # A role's name and a URL-safe random password need no quoting beyond this; neither is a
    # value that a statement of this kind could take as an argument.
    if not await connection.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", role):
        await connection.execute(f'CREATE ROLE "{role}" LOGIN')
    await connection.execute(
        f"""
        ALTER ROLE "{role}" WITH LOGIN PASSWORD '{password}' CONNECTION LIMIT 40;
        GRANT CONNECT, TEMPORARY ON DATABASE {DATABASE} TO "{role}";
        CREATE SCHEMA IF NOT EXISTS "{role}" AUTHORIZATION "{role}";
        ALTER ROLE "{role}" SET search_path = "{role}";
        """
    )


async def _prepare(home: Home, server: Postgres, programs: Programs, durable: bool) -> None:
    await asyncio.to_thread(programs.provide)
    data = home.data / "postgres"
    if not (data / "PG_VERSION").exists():
        await _initialise(home, server, programs)
    _forget_dead(data)
    _write(data / "postgresql.auto.conf", _settings(server.port, durable=durable), programs)
    _write(data / "pg_hba.conf", "host all all 127.0.0.1/32 scram-sha-256\n", programs)


def _settings(port: int, *, durable: bool) -> str:
    """Small, because everything of a laptop's stack shares its memory and its cores."""
    lines = {
        "listen_addresses": LOOPBACK,
        "port": port,
        "unix_socket_directories": "",
        "max_connections": 100,
        "shared_buffers": "32MB",
        "work_mem": "8MB",
        "max_wal_size": "512MB",
        "huge_pages": "off",
        "jit": "off",
        "io_method": "sync",
        "max_parallel_workers_per_gather": 0,
        "max_worker_processes": 2,
        "max_logical_replication_workers": 0,
        "wal_level": "minimal",
        "max_wal_senders": 0,
        "autovacuum_max_workers": 1,
        "password_encryption": "scram-sha-256",
        # Iterations slow down guessing a person's password; ours are 192 random bits.
        "scram_iterations": 64,
        "log_line_prefix": "%m [%p] %u ",
        "fsync": "on" if durable else "off",
        "synchronous_commit": "on" if durable else "off",
        "full_page_writes": "on" if durable else "off",
    }
    return "".join(f"{name} = '{value}'\n" for name, value in lines.items())


def _forget_dead(data: Path) -> None:
    """Remove the pid file of a server that is gone.

    PostgreSQL takes any process that has its old pid by now for itself and would not start, which
    happens after a reboot or in a new container. Ours alone may run here: the home is locked.
    """
    note = data / "postmaster.pid"
    try:
        pid = int(note.read_text(encoding="utf-8").split("\n", 1)[0])
    except (FileNotFoundError, ValueError):
        return
    try:
        alive = psutil.Process(pid).cwd() == str(data)
    except (psutil.NoSuchProcess, psutil.AccessDenied):  # denied: somebody else's process
        alive = False
    if not alive:
        note.unlink()


async def _initialise(home: Home, server: Postgres, programs: Programs) -> None:
    """Make the data directory, as a whole or not at all. Raises InitialiseError."""
    work = home.data / "postgres.new"
    shutil.rmtree(work, ignore_errors=True)
    fresh = work / "data"
    for folder in (work, fresh):
        folder.mkdir(mode=0o700)
        programs.own(folder)
    _write(work / "password", server.password, programs)
    argument = programs.data_argument(fresh)
    initdb = Part(
        name="initdb",
        command=(
            str(programs.initdb), f"--pgdata={argument}", f"--username={SUPERUSER}",
            f"--pwfile={argument}/../password", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C",
            "--no-sync", "--no-instructions", "--set=scram_iterations=64",
        ),
        directory=fresh,
        user=programs.user,
    )  # fmt: skip
    log = home.log / "postgres.log"
    code = await (await child.start(initdb, log)).process.wait()
    (work / "password").unlink()
    if code != 0:
        raise InitialiseError(f"initdb {child.ending(code)}")
    await asyncio.to_thread(os.sync)
    fresh.replace(home.data / "postgres")
    work.rmdir()


def _write(path: Path, text: str, programs: Programs) -> None:
    write_private(path, text)
    programs.own(path)


async def _answers(server: Postgres) -> None:
    try:
        connection = await asyncpg.connect(server.dsn(database=SUPERUSER), timeout=2)
    except (OSError, asyncpg.CannotConnectNowError, TimeoutError) as error:
        raise NotReadyError(str(error) or type(error).__name__) from error
    await connection.close()
