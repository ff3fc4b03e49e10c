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

from periplus_local.stack import leftovers, lock
from periplus_local.stack.child import tail
from periplus_local.stack.home import locate
from periplus_local.stack.part import Change, OnChange, PartFailedError, State

if TYPE_CHECKING:
    from pathlib import Path

    from periplus_local.stack.home import Home

_STOP_LIMIT = 60.0
_KILL_LIMIT = 5.0


def detach(home: Path | str | None = None, on_change: OnChange | None = None) -> lock.Holder:
    """Start the stack in a process of its own and return once every part is ready.

    Its changes go to `on_change` until then, and to stack.log in the home's log directory always.
    Raises HeldError if it runs already, and PartFailedError with the reason if it cannot start.
    """
    place = locate(home)
    place.create()
    if lock.is_held(place):
        raise lock.HeldError(place, lock.holder(place))
    failure = _start(place, on_change)
    started = lock.holder(place)
    if failure is not None or started is None:
        log = place.log / "stack.log"
        raise PartFailedError(failure or f"the supervisor ended; log: {log}\n{tail(log)}")
    return started


def _start(home: Home, on_change: OnChange | None) -> str | None:
    """Start the supervisor, follow its report, and return why it failed, if it did."""
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
            told = json.loads(line)
            if "ready" in told:
                return None
            if "failed" in told:
                supervisor.wait()
                return str(told["failed"])
            if on_change:
                on_change(Change(**(told | {"state": State(told["state"])})))
    code = supervisor.wait()
    return f"the supervisor ended with exit code {code}\n{tail(home.log / 'stack.log')}"


def down(home: Path | str | None = None) -> lock.Holder | None:
    """Stop the home's stack and return who ran it, or None if nobody did.

    Whatever a killed supervisor left behind is ended too. Raises TimeoutError if its processes
    cannot be ended.
    """
    place = locate(home)
    running = lock.holder(place)
    if running is not None:
        _end(place, running)
    if not lock.is_held(place):
        leftovers.clean(place.run / "children.json")
    return running


def _end(home: Home, running: lock.Holder) -> None:
    with suppress(ProcessLookupError):
        os.kill(running.pid, signal.SIGTERM)
    if _released(home, _STOP_LIMIT):
        return
    with suppress(psutil.NoSuchProcess):
        psutil.Process(running.pid).kill()
    if not _released(home, _KILL_LIMIT):
        raise TimeoutError(f"process {running.pid} still holds {home.path} after SIGKILL")


def _released(home: Home, seconds: float) -> bool:
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        if not lock.is_held(home):
            return True
        time.sleep(0.05)
    return False
