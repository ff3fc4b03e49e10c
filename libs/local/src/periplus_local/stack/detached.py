"""The stack in the background: started until it is ready, and stopped from another process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import psutil

from periplus_local.stack import lock, orphans
from periplus_local.stack.home import locate
from periplus_local.stack.process import OnChange, ProcessFailedError, ProcessState, StateChange
from periplus_local.stack.running_process import tail

if TYPE_CHECKING:
    from pathlib import Path

    from periplus_local.stack.home import Home

_STOP_TIMEOUT_SECONDS = 60.0
_KILL_TIMEOUT_SECONDS = 5.0
_POLL_SECONDS = 0.05


def detach(home: Path | str | None = None, on_change: OnChange | None = None) -> lock.Holder:
    """Start the stack in the background and return once every process is ready.

    Until then `on_change` is called with each change; all changes are logged in stack.log in the home's log directory.
    Raises HeldError if the stack runs already, and ProcessFailedError with the reason if it can not start.
    """
    located = locate(home)
    located.create()
    if lock.is_held(located):
        raise lock.HeldError(located, lock.holder(located))
    failure = _start(located, on_change)
    started = lock.holder(located)
    if failure is not None or started is None:
        log = located.log / "stack.log"
        raise ProcessFailedError(failure or f"the supervisor ended; log: {log}\n{tail(log)}")
    return started


def _start(home: Home, on_change: OnChange | None) -> str | None:
    """Start the supervisor, read its report until it is ready, and return the reason if it failed."""
    reading, writing = os.pipe()
    log = os.open(home.log / "stack.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    command = [sys.executable, "-m", "periplus_local.stack", "up", "--home", str(home.path)]
    supervisor = subprocess.Popen(  # noqa: S603 - our own module
        [*command, "--report", str(writing)],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        cwd=home.path,
        start_new_session=True,
        pass_fds=(writing,),
    )
    os.close(writing)
    os.close(log)
    with os.fdopen(reading, encoding="utf-8") as report:
        for line in report:
            message = json.loads(line)
            if "ready" in message:
                return None
            if "failed" in message:
                supervisor.wait()
                return str(message["failed"])
            if on_change:
                on_change(StateChange(**(message | {"state": ProcessState(message["state"])})))
    code = supervisor.wait()
    return f"the supervisor ended with exit code {code}\n{tail(home.log / 'stack.log')}"


def down(home: Path | str | None = None) -> lock.Holder | None:
    """Stop the home's stack; returns the process that ran it, or None if none did.

    Processes that outlived a killed supervisor are ended too. Raises TimeoutError if the supervisor can not be
    ended, and HomeError for a home that is not trusted: what it says about processes may be a stranger's.
    """
    located = locate(home)
    located.check()
    running = lock.holder(located)
    if running is not None:
        _end(located, running)
    if not lock.is_held(located):
        orphans.end_orphans(located.run / "processes.json")
    return running


def _end(home: Home, running: lock.Holder) -> None:
    with suppress(ProcessLookupError):
        os.kill(running.pid, signal.SIGTERM)
    if _released(home, _STOP_TIMEOUT_SECONDS):
        return
    with suppress(psutil.NoSuchProcess):
        psutil.Process(running.pid).kill()
    if not _released(home, _KILL_TIMEOUT_SECONDS):
        raise TimeoutError(f"process {running.pid} still holds {home.path} after SIGKILL")


def _released(home: Home, seconds: float) -> bool:
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        if not lock.is_held(home):
            return True
        time.sleep(_POLL_SECONDS)
    return False
