"""Which start of the machine this is."""

import subprocess
import sys
from functools import cache
from pathlib import Path


@cache
def boot() -> str:
    """A text that is another one after each start of the machine, whatever its clock says."""
    if sys.platform == "linux":
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    asked = ["/usr/sbin/sysctl", "-n", "kern.bootsessionuuid"]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603
