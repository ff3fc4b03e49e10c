"""Processes of a stack whose supervisor was killed: recorded when they start, ended by the next `up` or `down`.

A process is identified by its pid and its start time together, never by its name, so that another
process that has the pid by now is not touched.
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

from periplus_local.boot import start_time
from periplus_local.stack.home import write_private_json
from periplus_local.stack.running_process import kill_group

if TYPE_CHECKING:
    from collections.abc import Iterable

_STOP_TIMEOUT_SECONDS = 5.0
_POLL_SECONDS = 0.02


@dataclass(frozen=True)
class ProcessRecord:
    """A process that was started: its name in the stack, pid and start time, and how it is ended."""

    name: str
    pid: int
    start_time: str
    stop_signal: int
    temporary: tuple[str, ...] = ()
    """Paths outside the home to remove when it has ended."""


def write_records(path: Path, records: Iterable[ProcessRecord]) -> None:
    """Replace the record by the processes that run now."""
    write_private_json(path, {record.name: asdict(record) for record in records})


def read_records(path: Path) -> list[ProcessRecord]:
    """The processes that were last recorded; none if the file is missing or damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return [ProcessRecord(**entry) for entry in found.values()]
    except (FileNotFoundError, ValueError, TypeError, AttributeError):
        return []


def find_process(record: ProcessRecord) -> psutil.Process | None:
    """The recorded process, if it still runs."""
    try:
        process = psutil.Process(record.pid)
        alive = process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return None
    return process if alive and start_time(record.pid) == record.start_time else None


def end_orphans(path: Path, stop_timeout_seconds: float = _STOP_TIMEOUT_SECONDS) -> list[str]:
    """End the recorded processes that still run, the last started first; returns their names.

    Each gets its stop signal; after the timeout its group is killed. Their temporary files are removed.
    """
    records = read_records(path)
    alive = [record for record in records if find_process(record)]
    for record in reversed(alive):
        with suppress(ProcessLookupError):
            os.kill(record.pid, record.stop_signal)
    still_running = _wait(alive, stop_timeout_seconds)
    for record in still_running:
        kill_group(record.pid)
    _wait(still_running, _STOP_TIMEOUT_SECONDS)
    for record in records:
        remove(map(Path, record.temporary))
    path.unlink(missing_ok=True)
    return [record.name for record in alive]


def remove(paths: Iterable[Path]) -> None:
    """Remove files, and folders with all that is in them; a path that does not exist is no error."""
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _wait(records: list[ProcessRecord], seconds: float) -> list[ProcessRecord]:
    """Wait until all have ended, at most so many seconds; returns those that still run."""
    limit = time.monotonic() + seconds
    while (left := [record for record in records if find_process(record)]) and time.monotonic() < limit:
        time.sleep(_POLL_SECONDS)
    return left
