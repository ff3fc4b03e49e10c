"""Checks of a home and its stack; each problem comes with the command that fixes it."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import platform
import shutil
import socket
import stat
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import asyncpg
import nats
from nats.errors import Error as NatsError

from periplus_common import tls
from periplus_common.postgres import connect
from periplus_common.unix_socket import PREFIX, short_path
from periplus_local.argo.executor import support
from periplus_local.stack import embedded, lock, orphans, programs
from periplus_local.stack.home import Home, HomeError, UntrustedHomeError, locate
from periplus_local.stack.process_info import listeners, memory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_MIN_PYTHON = (3, 11)
_MIN_FREE_BYTES = 2 * 1024**3
_MAX_CLOCK_DIFFERENCE_SECONDS = 1.0
_UP = "periplus up"
EXPOSED = (
    "a step can do all that you can: read the home's secrets, change cache entries, end the stack; this machine gives it "
    "no namespaces"
)


@dataclass(frozen=True)
class Finding:
    """The outcome of one check, and the command that fixes it where it is not ok."""

    subject: str
    ok: bool
    detail: str
    fix: str = ""

    def line(self) -> str:
        """The finding on one line."""
        fix = f"  →  {self.fix}" if self.fix else ""
        return f"{'ok  ' if self.ok else 'BAD '} {self.subject:<22} {self.detail}{fix}"


def doctor(home: Path | str | None = None) -> list[Finding]:
    """Run every check; changes nothing and starts nothing. `home` as in `up`."""
    located = locate(home)
    try:
        located.check()
    except HomeError as error:
        fix = f"{_UP} --fresh" if isinstance(error, UntrustedHomeError) else ""
        return [
            _python(),
            *_programs(),
            Finding("home", ok=False, detail=str(error), fix=fix),
            _disk(located),
        ]
    holder = lock.holder(located)
    findings = [
        _python(),
        *_programs(),
        *_home(located),
        _disk(located),
        steps(),
        _supervisor(located, holder),
    ]
    if holder:
        findings += [*_processes(located, holder), _memory(holder), _ports(holder)]
        findings += asyncio.run(_clocks(located))
    return findings


def _python() -> Finding:
    ok = sys.version_info[:2] >= _MIN_PYTHON
    fix = "" if ok else "install Python 3.11 or later and run `make setup`"
    return Finding("python", ok, f"{platform.python_version()} at {sys.executable}", fix)


def _programs() -> Iterator[Finding]:
    servers: dict[str, tuple[Callable[[], Path], str]] = {
        "nats-server": (programs.nats_server, "--version"),
        "postgres": (lambda: programs.postgres("postgres"), "--version"),
        "seaweedfs": (programs.weed, "version"),
    }
    for name, (find, version_argument) in servers.items():
        try:
            path = find()
            version = subprocess.run(  # noqa: S603 - our own servers
                [str(path), version_argument], capture_output=True, text=True, timeout=20, check=True
            )
        except programs.ProgramMissingError as error:
            yield Finding(name, ok=False, detail=str(error), fix="make setup")
        except (OSError, subprocess.SubprocessError) as error:
            yield Finding(name, ok=False, detail=f"does not run: {error}", fix="make setup")
        else:
            yield Finding(name, ok=True, detail=version.stdout.strip().splitlines()[0])


def _home(home: Home) -> Iterator[Finding]:
    if not home.path.exists():
        yield Finding("home", ok=True, detail=f"{home.path} does not exist yet; `{_UP}` makes it")
        return
    yield Finding("home", ok=True, detail=str(home.path))
    private = [home.path, home.data, home.run, home.log, home.secrets, home.client_settings]
    private += sorted(home.secrets.glob("*"))
    readable = [p for p in private if p.exists() and stat.S_IMODE(p.stat().st_mode) & 0o077]
    if readable:
        names = " ".join(str(path) for path in readable)
        yield Finding("secrets", ok=False, detail=f"other users may read {names}", fix=f"chmod go= {names}")
    else:
        yield Finding("secrets", ok=True, detail="readable by their owner only")


def _disk(home: Home) -> Finding:
    existing = next(p for p in (home.path, *home.path.parents) if p.exists())
    free = shutil.disk_usage(existing).free
    ok = free >= _MIN_FREE_BYTES
    fix = "" if ok else "free some space, or set PERIPLUS_HOME to a larger disk"
    return Finding("disk", ok, f"{free / 1024**3:.1f} GiB free at {existing}", fix)


def steps() -> Finding:
    """Whether the steps of the local Argo are kept from the stack, as far as this machine allows it; tried, not asked."""
    found = support.find()
    if not found.exposure:
        return Finding("steps", ok=True, detail="see neither the home nor processes of others")
    return Finding("steps", ok=True, detail=f"{EXPOSED} ({found.exposure})", fix="periplus up --cluster")


def _supervisor(home: Home, holder: lock.Holder | None) -> Finding:
    if holder:
        return Finding("stack", ok=True, detail=f"held by {holder.describe()}")
    records = orphans.read_records(home.run / "processes.json")
    alive = [record for record in records if orphans.find_process(record)]
    if alive:
        names = ", ".join(f"{record.name} (process {record.pid})" for record in alive)
        return Finding(
            "stack",
            ok=False,
            detail=f"still running after their supervisor ended: {names}",
            fix="periplus down",
        )
    return Finding("stack", ok=False, detail="not running", fix=_UP)


def _processes(home: Home, holder: lock.Holder) -> Iterator[Finding]:
    records = {record.name: record for record in orphans.read_records(home.run / "processes.json")}
    for name, address in holder.addresses.items():
        record = records.get(name)
        process = orphans.find_process(record) if record else None
        log = f"less {home.log / name}.log"
        if process is None:
            yield Finding(name, ok=False, detail="no process", fix=log)
            continue
        detail = f"process {process.pid}, {address}, {_mib(memory(process.pid).resident)}"
        if _open(address):
            yield Finding(name, ok=True, detail=detail)
        else:
            yield Finding(name, ok=False, detail=f"{detail}: nothing listens there", fix=log)


def _memory(holder: lock.Holder) -> Finding:
    found = memory(holder.pid)
    once = f", {_mib(found.proportional)} counting shared pages once" if found.proportional else ""
    return Finding("memory", ok=True, detail=f"{_mib(found.resident)} resident in all{once}")


def _mib(size: int) -> str:
    return f"{size / 1024**2:.0f} MiB"


def _ports(holder: lock.Holder) -> Finding:
    found = listeners([holder.pid])
    reachable = [
        f"{listener.program} on {listener.host}:{listener.port}"
        for listener in found
        if not listener.is_loopback
    ]
    if reachable:
        fix = "periplus down"
        return Finding("ports", ok=False, detail=f"reachable from outside: {', '.join(reachable)}", fix=fix)
    programs_listening = ", ".join(sorted({listener.program for listener in found}))
    return Finding("ports", ok=True, detail=f"{len(found)} ports, all on loopback, of {programs_listening}")


def _open(address: str) -> bool:
    try:
        if address.startswith(PREFIX):
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(1)
                client.connect(short_path(address.removeprefix(PREFIX)))
        else:
            host, _, port = address.rpartition(":")
            socket.create_connection((host, int(port)), timeout=1).close()
    except OSError:
        return False
    return True


async def _clocks(home: Home) -> list[Finding]:
    servers = embedded.recorded(home)
    if servers is None:
        return []
    findings = []
    for name, read in (("postgres", _postgres_clock), ("nats", _nats_clock)):
        try:
            difference = await read(servers)
        except (OSError, TimeoutError, asyncpg.PostgresError, NatsError) as error:
            detail = f"{name} does not answer: {error or type(error).__name__}"
            findings.append(Finding(f"clock of {name}", ok=False, detail=detail, fix=_UP))
            continue
        ok = abs(difference) < _MAX_CLOCK_DIFFERENCE_SECONDS
        fix = "" if ok else "set the system's clock (timedatectl set-ntp true), then restart"
        findings.append(
            Finding(
                f"clock of {name}", ok, f"{difference * 1000:+.0f} ms from the clock of this process", fix
            )
        )
    return findings


async def _postgres_clock(servers: embedded.Embedded) -> float:
    connection = await connect(servers.postgres.dsn(), timeout=3)
    try:
        now = await connection.fetchval("SELECT extract(epoch FROM clock_timestamp())")
    finally:
        await connection.close()
    return float(now) - time.time()


async def _nats_clock(servers: embedded.Embedded) -> float:
    secured = tls.nats_options(servers.nats.url, servers.nats.ca_file)
    connection = await nats.connect(servers.nats.url, connect_timeout=2, allow_reconnect=False, **secured)
    try:
        answer = await connection.request("$JS.API.STREAM.INFO.DISPATCHER", b"", timeout=2)
    finally:
        await connection.close()
    return _epoch(str(json.loads(answer.data)["ts"])) - time.time()


def _epoch(timestamp: str) -> float:
    """An RFC 3339 time with any number of fractional digits, as seconds since the epoch."""
    whole, _, fraction = timestamp.rstrip("Z").partition(".")
    moment = dt.datetime.fromisoformat(whole).replace(tzinfo=dt.UTC)
    return moment.timestamp() + float(f"0.{fraction or 0}")
