"""Every process that a step left behind: found, signalled, reaped."""

# Paths are strings here: they go to system calls in a process that must start quickly.
# ruff: noqa: PTH123, PTH208

import ctypes
import os
import signal
import sys
import time

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
LINUX = sys.platform.startswith("linux")
# A step that forks faster than it can be killed must not hold the launcher for ever.
END_SECONDS = 10.0

_libc = ctypes.CDLL(None, use_errno=True)


def adopt_orphans() -> None:
    """Make this process the parent of every descendant whose own parent has ended (Linux)."""
    if LINUX:
        _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when `parent`, its launcher, dies (Linux)."""
    if LINUX:
        _libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != parent:  # it died before this was set
            os._exit(125)


def signal_group(leader: int, number: signal.Signals) -> None:
    """Send a signal to the process group of `leader`, if any of it is left."""
    try:
        os.killpg(leader, number)
    except (ProcessLookupError, PermissionError):
        return  # gone, or only zombies are left (macOS says EPERM)


def end_all(leader: int) -> None:
    """Kill what is left of the step's group and of its descendants, and reap them.

    On Linux orphans become children of this process, whatever session they fled to, so killing
    children until there are none ends the whole tree. Elsewhere the group has to do.
    """
    signal_group(leader, signal.SIGKILL)
    until = time.monotonic() + END_SECONDS
    while time.monotonic() < until:
        for child in children():
            end(child)
        if not _reap():
            return
        time.sleep(0.001)


def end(child: int) -> None:
    """Kill a process and, in one go, its group: whoever forks there has no time to escape."""
    try:
        group = os.getpgid(child)
    except ProcessLookupError:
        return  # ended meanwhile
    if group != os.getpgrp():
        signal_group(group, signal.SIGKILL)
    kill(child)


def _reap() -> bool:
    """Take leave of all children that have ended; whether there are others."""
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return False
        if pid == 0:
            return True


def children() -> list[int]:
    """The children of this process, zombies included (Linux; empty elsewhere)."""
    if not LINUX:
        return []
    try:
        with open(f"/proc/self/task/{os.getpid()}/children") as file:
            return [int(pid) for pid in file.read().split()]
    except FileNotFoundError:
        return _children_by_scan()


def _children_by_scan() -> list[int]:
    """For kernels that do not list children."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat") as file:
                parent = file.read().rpartition(")")[2].split()[1]
        except OSError:
            continue  # ended meanwhile
        if int(parent) == os.getpid():
            found.append(int(name))
    return found


def kill(pid: int) -> None:
    """Kill one process, if it is still there and within reach."""
    try:
        os.kill(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return  # ended meanwhile, or it changed its user and is out of reach


def oom_kills() -> int:
    """How often the kernel has killed a process of this machine for want of memory (Linux)."""
    try:
        with open("/proc/vmstat", "rb") as file:
            count = file.read().partition(b"\noom_kill ")[2]
    except OSError:
        return 0
    return int(count.split(b"\n", 1)[0] or 0)
