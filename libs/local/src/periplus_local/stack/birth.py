"""What makes a process that very process: when it was born, as the system itself counts."""

from __future__ import annotations

import sys
from pathlib import Path

import psutil

from periplus_local.boot import boot

_STARTED = 19  # the start time among the fields of /proc/<pid>/stat that follow the name


def birth(pid: int) -> str:
    """A text that no other process with this pid ever has, or "" if there is none.

    Not the time of day: that moves for a process when the system's clock is set.
    """
    if sys.platform == "linux":
        try:
            fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return ""
        return f"{boot()} {fields[_STARTED]}"
    try:
        return str(psutil.Process(pid).create_time())
    except psutil.NoSuchProcess:
        return ""
