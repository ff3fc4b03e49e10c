"""Limits and grace periods of the executor."""

import os
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class ExecutorSettings:
    """How many jobs run at once, what each may use, and how long it has to end.

    `grace` lies between SIGTERM and SIGKILL when a job's deadline passes, `closing_grace` when the executor
    closes. `visible` are folders below /tmp that steps may read, besides those of this interpreter. With
    `namespaces` false, private paths are rewritten in the command even where mount namespaces work.
    """

    slots: int = os.cpu_count() or 1
    visible: tuple[Path, ...] = ()
    namespaces: bool = True
    grace: timedelta = timedelta(seconds=30)
    closing_grace: timedelta = timedelta(seconds=5)
    max_log_bytes: int = 64 << 20
    max_unpacked_bytes: int = 64 << 30
    max_unpacked_entries: int = 1_000_000
