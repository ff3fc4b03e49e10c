"""Processes of a stack that outlived their supervisor: recorded as they start, ended by the next.

A process is known by its pid and its birth together, never by its name, so that a pid that
the system has given to somebody else since is left alone.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from periplus_local.stack.birth import birth
from periplus_local.stack.child import kill_group
from periplus_local.stack.home import write_private_json

if TYPE_CHECKING:
    from collections.abc import Iterable

_GRACE = 5.0


@dataclass(frozen=True)
class Recorded:
    """A process that was started: its part, its pid, its birth and how it likes to stop."""

    part: str
    pid: int
    born: str
    stop_signal: int
    temporary: tuple[str, ...] = ()
    """Paths outside the home that go with it."""


def record(path: Path, children: Iterable[Recorded]) -> None:
    """Write down the processes that run now."""
    write_private_json(path, {child.part: asdict(child) for child in children})


def recorded(path: Path) -> list[Recorded]:
    """The processes that were last written down; none if the file is missing or damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return [Recorded(**entry) for entry in found.values()]
    except (FileNotFoundError, ValueError, TypeError, AttributeError):
        return []


def running(child: Recorded) -> psutil.Process | None:
    """The process, if it is still that very process."""
    try:
        process = psutil.Process(child.pid)
        alive = process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return None
    return process if alive and birth(child.pid) == child.born else None


def clean(path: Path, grace: float = _GRACE) -> list[str]:
    """End whatever a dead supervisor left, the last started first; returns the names of the parts.

    Each gets its stop signal and `grace` seconds, then its group is killed.
    """
    alive = [child for child in recorded(path) if running(child)]
    for child in reversed(alive):
        with suppress(ProcessLookupError):
            os.kill(child.pid, child.stop_signal)
    stubborn = _outliving(alive, grace)
    for child in stubborn:
        kill_group(child.pid)
    _outliving(stubborn, _GRACE)
    for child in recorded(path):
        remove(map(Path, child.temporary))
    path.unlink(missing_ok=True)
    return [child.part for child in alive]


def remove(paths: Iterable[Path]) -> None:
    """Remove files and whole folders; those that are not there are no error."""
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _outliving(children: list[Recorded], seconds: float) -> list[Recorded]:
    """Those that still run after so many seconds, or sooner none."""
    limit = time.monotonic() + seconds
    while (left := [child for child in children if running(child)]) and time.monotonic() < limit:
        time.sleep(0.02)
    return left
