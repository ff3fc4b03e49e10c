"""Limits and grace periods of the executor."""

import os
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from periplus_common.tar import DEFAULT_LIMITS, TarLimits


@dataclass(frozen=True, kw_only=True)
class UnpackLimits:
    """What one archive may unpack to. A large artifact is no attack: the disk is the bound, of which `min_free_bytes`
    stay free, as the servers of the stack write to it too.
    """

    tar: TarLimits = DEFAULT_LIMITS
    min_free_bytes: int = 1 << 30


@dataclass(frozen=True, kw_only=True)
class ExecutorSettings:
    """How many jobs run at once, what each may use, and how long it has to end.

    `grace` lies between SIGTERM and SIGKILL when a job's deadline passes, `closing_grace` when the executor
    closes. `visible` are folders below /tmp that steps may read, besides those of this interpreter; `hidden` are folders
    that no step sees where mount namespaces work, besides the executor's own, and `hidden_list` is a folder whose files
    hold the path of one more each. With `namespaces` false, private paths are rewritten in the command even where mount namespaces work.
    """

    slots: int = os.cpu_count() or 1
    visible: tuple[Path, ...] = ()
    hidden: tuple[Path, ...] = ()
    hidden_list: Path | None = None
    namespaces: bool = True
    grace: timedelta = timedelta(seconds=30)
    closing_grace: timedelta = timedelta(seconds=5)
    max_log_bytes: int = 64 << 20
    unpack: UnpackLimits = UnpackLimits()
