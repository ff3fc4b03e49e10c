"""What is up and what is wrong with a home and its stack, each problem with what fixes it."""

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

from periplus_local.stack import embedded, leftovers, lock, programs
from periplus_local.stack.exposure import listeners, memory
from periplus_local.stack.home import Home, locate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_PYTHON = (3, 11)
_DISK_WANTED = 2 * 1024**3
_CLOCK_WANTED = 1.0
_UP = "periplus up"


@dataclass(frozen=True)
class Finding:
    """One thing looked at: what was seen, whether it is well, and if not the command to run."""

    subject: str
    ok: bool
    told: str
    fix: str = ""

    def line(self) -> str:
        """The finding on one line."""
        fix = f"  →  {self.fix}" if self.fix else ""
        return f"{'ok  ' if self.ok else 'BAD '} {self.subject:<22} {self.told}{fix}"


def doctor(home: Path | str | None = None) -> list[Finding]:
    """Look at everything; changes nothing and starts nothing. `home` as `up` takes it."""
    place = locate(home)
    holder = lock.holder(place)
    findings = [_python(), *_programs(), *_home(place), _disk(place), _supervisor(place, holder)]
    if holder:
        findings += [*_parts(place, holder), _memory(holder), _ports(holder)]
        findings += asyncio.run(_clocks(place))
    return findings


def _python() -> Finding:
    ok = sys.version_info[:2] >= _PYTHON
    fix = "" if ok else "install Python 3.11 or later and run `make setup`"
    return Finding("python", ok, f"{platform.python_version()} at {sys.executable}", fix)


def _programs() -> Iterator[Finding]:
    wanted: dict[str, tuple[Callable[[], Path], str]] = {
        "nats-server": (programs.nats_server, "--version"),
        "postgres": (lambda: programs.postgres("postgres"), "--version"),
        "seaweedfs": (programs.weed, "version"),
    }
    for name, (find, asking) in wanted.items():
        try:
            path = find()
            told = subprocess.run(  # noqa: S603 - our own servers
                [str(path), asking], capture_output=True, text=True, timeout=20, check=True
            )
        except programs.ProgramMissingError as error:
            yield Finding(name, ok=False, told=str(error), fix="make setup")
        except (OSError, subprocess.SubprocessError) as error:
            yield Finding(name, ok=False, told=f"does not run: {error}", fix="make setup")
        else:
            yield Finding(name, ok=True, told=told.stdout.strip().splitlines()[0])


def _home(home: Home) -> Iterator[Finding]:
    if not home.path.exists():
        yield Finding("home", ok=True, told=f"{home.path} is not there yet; `{_UP}` makes it")
        return
    yield Finding("home", ok=True, told=str(home.path))
    private = [home.path, home.data, home.run, home.log, home.secrets, home.client_settings]
    private += sorted(home.secrets.glob("*"))
    opened = [p for p in private if p.exists() and stat.S_IMODE(p.stat().st_mode) & 0o077]
    if opened:
        names = " ".join(str(path) for path in opened)
        yield Finding("secrets", ok=False, told=f"others may read {names}", fix=f"chmod go= {names}")
    else:
        yield Finding("secrets", ok=True, told="readable by their owner alone")


def _disk(home: Home) -> Finding:
    existing = next(p for p in (home.path, *home.path.parents) if p.exists())
    free = shutil.disk_usage(existing).free
    ok = free >= _DISK_WANTED
    fix = "" if ok else "free some space, or set PERIPLUS_HOME to a larger disk"
    return Finding("disk", ok, f"{free / 1024**3:.1f} GiB free at {existing}", fix)


def _supervisor(home: Home, holder: lock.Holder | None) -> Finding:
    if holder:
        return Finding("stack", ok=True, told=f"held by {holder.told()}")
    left = leftovers.recorded(home.run / "children.json")
    alive = [child for child in left if leftovers.running(child)]
    if alive:
        names = ", ".join(f"{child.part} (process {child.pid})" for child in alive)
        return Finding("stack", ok=False, told=f"left behind: {names}", fix="periplus down")
    return Finding("stack", ok=False, told="not running", fix=_UP)


def _parts(home: Home, holder: lock.Holder) -> Iterator[Finding]:
    children = {c.part: c for c in leftovers.recorded(home.run / "children.json")}
    for name, address in holder.addresses.items():
        child = children.get(name)
        process = leftovers.running(child) if child else None
        log = f"less {home.log / name}.log"
        if process is None:
            yield Finding(name, ok=False, told="no process", fix=log)
            continue
        told = f"process {process.pid}, {address}, {_mib(memory(process.pid).resident)}"
        if _open(address):
            yield Finding(name, ok=True, told=told)
        else:
            yield Finding(name, ok=False, told=f"{told}: the port is closed", fix=log)


def _memory(holder: lock.Holder) -> Finding:
    found = memory(holder.pid)
    once = f", {_mib(found.proportional)} counting shared pages once" if found.proportional else ""
    return Finding("memory", ok=True, told=f"{_mib(found.resident)} resident in all{once}")


def _mib(size: int) -> str:
    return f"{size / 1024**2:.0f} MiB"


def _ports(holder: lock.Holder) -> Finding:
    found = listeners([holder.pid])
    astray = [
        f"{listener.program} on {listener.host}:{listener.port}" for listener in found if not listener.local
    ]
    if astray:
        fix = "periplus down"
        return Finding("ports", ok=False, told=f"reachable from outside: {', '.join(astray)}", fix=fix)
    return Finding("ports", ok=True, told=f"{len(found)} listen, all on loopback")


def _open(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except OSError:
        return False
    return True


async def _clocks(home: Home) -> list[Finding]:
    servers = embedded.recorded(home)
    if servers is None:
        return []
    findings = []
    for name, ask in (("postgres", _postgres_clock), ("nats", _nats_clock)):
        try:
            apart = await ask(servers)
        except (OSError, TimeoutError, asyncpg.PostgresError, NatsError) as error:
            told = f"{name} does not tell: {error or type(error).__name__}"
            findings.append(Finding(f"clock of {name}", ok=False, told=told, fix=_UP))
            continue
        ok = abs(apart) < _CLOCK_WANTED
        fix = "" if ok else "set the system's clock (timedatectl set-ntp true), then restart"
        findings.append(Finding(f"clock of {name}", ok, f"{apart * 1000:+.0f} ms from ours", fix))
    return findings


async def _postgres_clock(servers: embedded.Embedded) -> float:
    connection = await asyncpg.connect(servers.postgres.dsn(), timeout=3)
    try:
        told = await connection.fetchval("SELECT extract(epoch FROM clock_timestamp())")
    finally:
        await connection.close()
    return float(told) - time.time()


async def _nats_clock(servers: embedded.Embedded) -> float:
    connection = await nats.connect(servers.nats.url, connect_timeout=2, allow_reconnect=False)
    try:
        answer = await connection.request("$JS.API.STREAM.INFO.DISPATCHER", b"", timeout=2)
    finally:
        await connection.close()
    told = str(json.loads(answer.data)["ts"])
    return _epoch(told) - time.time()


def _epoch(timestamp: str) -> float:
    """An RFC 3339 time with any number of fractional digits, as seconds since the epoch."""
    whole, _, fraction = timestamp.rstrip("Z").partition(".")
    moment = dt.datetime.fromisoformat(whole).replace(tzinfo=dt.UTC)
    return moment.timestamp() + float(f"0.{fraction or 0}")
