"""The processes that a step started: finding, signalling and reaping them, orphans included."""

# Paths are strings here: they go to system calls in a process that must start quickly.
# ruff: noqa: PTH123, PTH208

import ctypes
import os
import signal
import sys
import time

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
LINUX = sys.platform.startswith("linux")
# Bounds the wait for a step that forks faster than it can be killed.
KILL_ALL_SECONDS = 10.0

_libc = ctypes.CDLL(None, use_errno=True)


def adopt_orphans() -> None:
    """Make this process the parent of every descendant whose own parent has ended (Linux)."""
    if LINUX:
        _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent dies (Linux)."""
    if LINUX:
        _libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != parent:  # it died before this was set
            os._exit(125)


def die_with_supervisor(supervisor: int) -> None:
    """The same for the first process of a PID namespace, whose parent is in another; before it has a /proc of its own."""
    _libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    with open("/proc/self/stat") as file:
        parent = int(file.read().rpartition(")")[2].split()[1])
    if parent != supervisor:
        os._exit(125)


def signal_group(leader: int, number: signal.Signals) -> None:
    """Send a signal to the process group of `leader`, if any of it is left."""
    try:
        os.killpg(leader, number)
    except (ProcessLookupError, PermissionError):
        return  # it has ended, or only zombies are left (macOS says EPERM)


def kill_all(leader: int) -> None:
    """Kill what is left of the step's process group and of its descendants, and reap them.

    On Linux orphans become children of this process, whatever session they moved to, so killing children until
    there are none ends the whole tree. Elsewhere only the process group is killed.
    """
    signal_group(leader, signal.SIGKILL)
    until = time.monotonic() + KILL_ALL_SECONDS
    while time.monotonic() < until:
        for child in children():
            kill_with_group(child)
        if not _reap():
            return
        time.sleep(0.001)


def kill_with_group(pid: int) -> None:
    """Kill a process and its whole process group, so that it has no time to fork out of reach."""
    try:
        group = os.getpgid(pid)
    except ProcessLookupError:
        return  # it ended meanwhile
    if group != os.getpgrp():
        signal_group(group, signal.SIGKILL)
    kill(pid)


def _reap() -> bool:
    """Reap all children that have ended; whether there are others."""
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
    """For kernels without CONFIG_PROC_CHILDREN."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat") as file:
                parent = file.read().rpartition(")")[2].split()[1]
        except OSError:
            continue  # it ended meanwhile
        if int(parent) == os.getpid():
            found.append(int(name))
    return found


def kill(pid: int) -> None:
    """Kill one process, if it exists and may be signalled."""
    send(pid, signal.SIGKILL)


def send(pid: int, number: signal.Signals) -> None:
    """Send a signal to one process, if it exists and may be signalled."""
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return  # it ended meanwhile, or it changed its user


def oom_kills() -> int:
    """How often the kernel has killed a process of this machine for lack of memory (Linux)."""
    try:
        with open("/proc/vmstat", "rb") as file:
            count = file.read().partition(b"\noom_kill ")[2]
    except OSError:
        return 0
    return int(count.split(b"\n", 1)[0] or 0)
