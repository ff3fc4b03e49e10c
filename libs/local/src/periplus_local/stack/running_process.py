"""A running process of the stack: started in a group of its own, with a log, and stopped with its group."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from periplus_common import private_process
from periplus_local.boot import start_time

if TYPE_CHECKING:
    from collections.abc import Sequence

    from periplus_local.stack.process import ProcessSpec

_EXEC_WITH_PARENT = Path(__file__).with_name("exec_with_parent.py")
_MAX_LOG_BYTES = 16 * 1024 * 1024
_TAIL_BYTES, _TAIL_LINES, _TAIL_LINE_CHARACTERS = 16_384, 12, 400
_INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "VIRTUAL_ENV", "USER", "LOGNAME")


@dataclass(frozen=True)
class RunningProcess:
    """A started process. Its process id is also the id of its process group and session."""

    spec: ProcessSpec
    process: asyncio.subprocess.Process
    log: Path
    start_time: str
    """Identifies the process together with its pid."""
    started: float
    """The monotonic time at which it was started."""

    @property
    def pid(self) -> int:
        """The process id."""
        return self.process.pid


async def start(spec: ProcessSpec, log: Path) -> RunningProcess:
    """Start a process with its output appended to `log`. Raises OSError."""
    spec.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = _open_log(log)
    started = time.monotonic()
    uid, gid = (spec.user.uid, spec.user.gid) if spec.user else (-1, -1)
    with ExitStack() as opened:
        opened.callback(os.close, descriptor)
        env, passed = environment(spec), []
        if spec.secrets:
            passed = [opened.enter_context(private_process.passing(spec.secrets))]
            env[private_process.VARIABLE] = str(passed[0])
        process = await asyncio.create_subprocess_exec(
            *tied_to_this_process(spec.command, spec.stop_signal, uid, gid),
            cwd=spec.directory,
            env=env,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=descriptor,
            stderr=descriptor,
            start_new_session=True,
            pass_fds=passed,
        )
    return RunningProcess(spec, process, log, start_time(process.pid), started)


def tied_to_this_process(
    command: Sequence[str], stop_signal: signal.Signals, uid: int = -1, gid: int = -1
) -> list[str]:
    """The command line that runs `command` and sends it the signal when this process ends, even by SIGKILL (Linux)."""
    arguments = (os.getpid(), int(stop_signal), uid, gid)
    return [sys.executable, "-I", "-S", str(_EXEC_WITH_PARENT), *map(str, arguments), *command]


def _open_log(log: Path) -> int:
    """Open a log for appending, readable by its owner alone. One that is too large is renamed first."""
    if log.exists() and log.stat().st_size > _MAX_LOG_BYTES:
        log.replace(log.with_suffix(".log.1"))
    return os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


def environment(spec: ProcessSpec) -> dict[str, str]:
    """The variables of a process: the few inherited ones, then its own, none of which is secret."""
    inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    return inherited | {"PYTHONUNBUFFERED": "1"} | dict(spec.env)


async def stop(running: RunningProcess) -> float:
    """Send the stop signal, wait up to the stop timeout, then kill the process group. Returns the seconds it took."""
    begun = time.monotonic()
    if running.process.returncode is None:
        with suppress(ProcessLookupError):
            running.process.send_signal(running.spec.stop_signal)
        with suppress(TimeoutError):
            async with asyncio.timeout(running.spec.stop_timeout_seconds):
                await running.process.wait()
    # Also the processes that it started and did not end.
    kill_group(running.pid)
    await running.process.wait()
    return time.monotonic() - begun


def kill_group(pid: int) -> None:
    """Kill every process of the group that this pid leads, if there is one."""
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def tail(log: Path) -> str:
    """The last lines of a log, indented, to be shown with the reason of a failure."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except FileNotFoundError:
        return ""
    return "\n".join(f"    {line[:_TAIL_LINE_CHARACTERS]}" for line in lines[-_TAIL_LINES:])


def describe_exit(code: int) -> str:
    """How a process ended, from its return code as `subprocess` has it."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"
