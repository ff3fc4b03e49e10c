"""One running process of the stack: started in its own group, logged, stopped in order."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from periplus_local.stack.birth import birth

if TYPE_CHECKING:
    from collections.abc import Sequence

    from periplus_local.stack.part import Part

_LAUNCH = Path(__file__).with_name("launch.py")
_LOG_LIMIT = 16 * 1024 * 1024
_TAIL_LINES = 12
_INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "VIRTUAL_ENV", "USER", "LOGNAME")


@dataclass(frozen=True)
class Child:
    """A started part. Its process id is also the id of its process group and session."""

    part: Part
    process: asyncio.subprocess.Process
    log: Path
    born: str
    """With the pid, what names this process and no other."""
    started: float
    """The monotonic time at which it was started."""

    @property
    def pid(self) -> int:
        """The process id."""
        return self.process.pid


async def start(part: Part, log: Path) -> Child:
    """Start a part's process, its output appended to `log`. Raises OSError."""
    part.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = _appending(log)
    started = time.monotonic()
    uid, gid = (part.user.uid, part.user.gid) if part.user else (-1, -1)
    try:
        process = await asyncio.create_subprocess_exec(
            *bound(part.command, part.stop_signal, uid, gid),
            cwd=part.directory,
            env=environment(part),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=descriptor,
            stderr=descriptor,
            start_new_session=True,
        )
    finally:
        os.close(descriptor)
    return Child(part, process, log, birth(process.pid), started)


def bound(command: Sequence[str], stop_signal: signal.Signals, uid: int = -1, gid: int = -1) -> list[str]:
    """The command line by which a program gets the signal when this process ends, however it ends (Linux)."""
    own = (os.getpid(), int(stop_signal), uid, gid)
    return [sys.executable, "-I", "-S", str(_LAUNCH), *map(str, own), *command]


def _appending(log: Path) -> int:
    """Open a log at its end, private to its owner; one that has grown large is put aside."""
    if log.exists() and log.stat().st_size > _LOG_LIMIT:
        log.replace(log.with_suffix(".log.1"))
    return os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


def environment(part: Part) -> dict[str, str]:
    """What a part's process sees: the few inherited variables it needs, then its own."""
    inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    return inherited | {"PYTHONUNBUFFERED": "1"} | dict(part.env)


async def stop(child: Child) -> float:
    """End a part: its stop signal, its grace, then the kill of its group. Returns the seconds."""
    begun = time.monotonic()
    if child.process.returncode is None:
        with suppress(ProcessLookupError):
            child.process.send_signal(child.part.stop_signal)
        with suppress(TimeoutError):
            await asyncio.wait_for(child.process.wait(), child.part.grace)
    # What the process left behind in its group goes as well.
    kill_group(child.pid)
    await child.process.wait()
    return time.monotonic() - begun


def kill_group(pid: int) -> None:
    """Kill every process of the group that this pid leads, if any is left."""
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def tail(log: Path) -> str:
    """The last lines of a log, indented, for a person who must see why a part failed."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 16_384))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except FileNotFoundError:
        return ""
    return "\n".join(f"    {line[:400]}" for line in lines[-_TAIL_LINES:])


def ending(code: int) -> str:
    """How a process ended, in words."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"
