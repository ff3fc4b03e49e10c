"""What tells starts apart: of the machine, and of a process whose pid may have been used before."""

import subprocess
import sys
from functools import cache
from pathlib import Path

_START_TIME_FIELD = 19  # among the fields of /proc/<pid>/stat that follow the program's name


@cache
def boot() -> str:
    """The id of the machine's current boot: different after each start, whatever the clock says."""
    if sys.platform == "linux":
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    command = ["/usr/sbin/sysctl", "-n", "kern.bootsessionuuid"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603


def start_time(pid: int) -> str:
    """When a process was started, as a text that no other process with this pid ever has; "" if there is no such process.

    Not the time of day: the system changes that of a running process when its clock is set.
    """
    if sys.platform == "linux":
        try:
            fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return ""
        return f"{boot()} {fields[_START_TIME_FIELD]}"
    import psutil  # the local Argo, which reads only the boot id, need not load it

    try:
        return str(psutil.Process(pid).create_time())
    except psutil.NoSuchProcess:
        return ""
