"""The embedded PostgreSQL: its data directory, settings and process, and a role and schema per service."""

from __future__ import annotations

import asyncio
import os
import shutil
from dataclasses import dataclass, field
from functools import partial
from signal import SIGINT
from typing import TYPE_CHECKING
from urllib.parse import quote

import asyncpg
import psutil

from periplus_common.postgres import connect
from periplus_common.unix_socket import POSTGRES_SOCKET, PREFIX
from periplus_local.stack import postgres_programs, running_process
from periplus_local.stack.home import write_private
from periplus_local.stack.process import NotReadyError, ProcessSpec
from periplus_local.stack.process_info import as_user_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from periplus_local.stack.home import Home
    from periplus_local.stack.postgres_programs import Programs

SUPERUSER = "postgres"
DATABASE = "periplus"


class InitialiseError(Exception):
    """initdb failed; the reason is in the log."""


@dataclass(frozen=True)
class Postgres:
    """The folder of the server's socket, the superuser's password, and each service's."""

    folder: Path
    password: str
    roles: Mapping[str, str] = field(default_factory=dict)
    """Password by role. Each role owns the schema of its own name and has no rights on others."""

    def dsn(self, role: str = SUPERUSER, database: str = DATABASE) -> str:
        """The connection string of a role, with its password."""
        password = self.password if role == SUPERUSER else self.roles[role]
        return f"postgresql://{role}:{password}@{quote(str(self.folder), safe='')}/{database}"


def spec(home: Home, server: Postgres, *, durable: bool = True) -> ProcessSpec:
    """The process of PostgreSQL. `durable`: a committed transaction survives a power failure."""
    programs = postgres_programs.find()
    data = home.data / "postgres"
    return ProcessSpec(
        name="postgres",
        command=(str(programs.postgres), "-D", programs.data_argument(data)),
        directory=data,
        prepare=partial(_prepare, home, server, programs, durable),
        ready=partial(_ready, server),
        provision=partial(provision, server),
        address=f"{PREFIX}{server.folder / POSTGRES_SOCKET}",
        user=programs.user,
        stop_signal=SIGINT,  # ends sessions and writes a checkpoint; SIGTERM would wait for sessions to end
        stop_timeout_seconds=15.0,
        temporary=programs.temporary,
    )


async def provision(server: Postgres) -> None:
    """Create the database, and a role with a schema per service; idempotent. Raises errors of asyncpg."""
    connection = await connect(server.dsn(database=SUPERUSER), timeout=5)
    try:
        if not await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", DATABASE):
            await connection.execute(f"CREATE DATABASE {DATABASE}")
        await connection.execute(f"REVOKE ALL ON DATABASE {DATABASE}, {SUPERUSER}, template1 FROM PUBLIC")
    finally:
        await connection.close()
    connection = await connect(server.dsn(), timeout=5)
    try:
        await connection.execute("REVOKE ALL ON SCHEMA public FROM PUBLIC")
        for role, password in server.roles.items():
            await _provision_role(connection, role, password)
    finally:
        await connection.close()


async def _provision_role(connection: asyncpg.Connection[asyncpg.Record], role: str, password: str) -> None:
    # DDL takes no parameters. The names of roles are ours, and passwords are URL-safe: no quote can be in them.
    if not await connection.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", role):
        await connection.execute(f'CREATE ROLE "{role}" LOGIN')
    await connection.execute(
        f"""
        ALTER ROLE "{role}" WITH LOGIN PASSWORD '{password}' CONNECTION LIMIT 40;
        REVOKE ALL ON DATABASE {DATABASE} FROM "{role}";
        GRANT CONNECT ON DATABASE {DATABASE} TO "{role}";
        CREATE SCHEMA IF NOT EXISTS "{role}" AUTHORIZATION "{role}";
        ALTER ROLE "{role}" SET search_path = "{role}";
        ALTER ROLE "{role}" SET statement_timeout = '60s';
        ALTER ROLE "{role}" SET idle_in_transaction_session_timeout = '60s';
        """
    )


async def _prepare(home: Home, server: Postgres, programs: Programs, durable: bool) -> None:
    await asyncio.to_thread(programs.provide)
    data = home.data / "postgres"
    if not (data / "PG_VERSION").exists():
        await _initialise(home, server, programs)
    _remove_stale_pid_files(data)
    _write(data / "postgresql.auto.conf", _settings(durable=durable), programs)
    _write(data / "pg_hba.conf", "local all all scram-sha-256\n", programs)


def _settings(*, durable: bool) -> str:
    """Settings for little memory: all processes of the stack share one laptop."""
    lines = {
        "listen_addresses": "",
        "unix_socket_directories": ".",  # the data directory, in which nobody else can make a socket
        "unix_socket_permissions": "0700",
        "max_connections": 100,
        "authentication_timeout": "10s",
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
        # Iterations slow down guessing; passwords of 192 random bits can not be guessed.
        "scram_iterations": 64,
        "log_line_prefix": "%m [%p] %u ",
        "fsync": "on" if durable else "off",
        "synchronous_commit": "on" if durable else "off",
        "full_page_writes": "on" if durable else "off",
    }
    return "".join(f"{name} = '{value}'\n" for name, value in lines.items())


def _remove_stale_pid_files(data: Path) -> None:
    """Remove the pid files of a server that does not run any more.

    PostgreSQL takes any process that has this pid by now for a running server and does not start; that happens after a
    reboot or in a new container. No other server can use the data: this process holds the home.
    """
    pid_file = data / "postmaster.pid"
    if not _runs(pid_file):
        pid_file.unlink(missing_ok=True)
        (data / f"{POSTGRES_SOCKET}.lock").unlink(missing_ok=True)


def _runs(pid_file: Path) -> bool:
    """Whether the server of this pid file runs, in the data directory."""
    try:
        process = psutil.Process(int(pid_file.read_text(encoding="utf-8").split("\n", 1)[0]))
        with as_user_of(process):
            return process.cwd() == str(pid_file.parent)
    except (FileNotFoundError, ValueError, psutil.NoSuchProcess, psutil.AccessDenied):
        return False  # denied: a process of another user


async def _initialise(home: Home, server: Postgres, programs: Programs) -> None:
    """Create the data directory; renamed into its final name when it is complete. Raises InitialiseError."""
    work = home.data / "postgres.new"
    shutil.rmtree(work, ignore_errors=True)
    fresh = work / "data"
    for folder in (work, fresh):
        folder.mkdir(mode=0o700)
        programs.own(folder)
    _write(work / "password", server.password, programs)
    argument = programs.data_argument(fresh)
    initdb = ProcessSpec(
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
    code = await (await running_process.start(initdb, log)).process.wait()
    (work / "password").unlink()
    if code != 0:
        raise InitialiseError(f"initdb {running_process.describe_exit(code)}")
    await asyncio.to_thread(os.sync)
    fresh.replace(home.data / "postgres")
    work.rmdir()


def _write(path: Path, text: str, programs: Programs) -> None:
    write_private(path, text)
    programs.own(path)


async def _ready(server: Postgres) -> None:
    try:
        connection = await connect(server.dsn(database=SUPERUSER), timeout=2)
    except (OSError, asyncpg.CannotConnectNowError, TimeoutError) as error:
        raise NotReadyError(str(error) or type(error).__name__) from error
    await connection.close()
