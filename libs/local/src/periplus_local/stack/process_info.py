"""What the processes of the stack use of the machine: the TCP ports that they listen on, and memory."""

from __future__ import annotations

import ctypes
import ipaddress
import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

_PR_SET_PDEATHSIG, _PR_GET_PDEATHSIG, _PR_GET_DUMPABLE, _PR_SET_DUMPABLE = 1, 2, 3, 4
_LISTEN = "0A"  # in the tables of sockets below /proc/net


@dataclass(frozen=True)
class Listener:
    """A TCP port that a process listens on."""

    pid: int
    program: str
    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether only processes of this machine can connect."""
        return ipaddress.ip_address(self.host).is_loopback


def listeners(pids: Iterable[int]) -> list[Listener]:
    """Every TCP port that these processes and their descendants listen on, by port.

    Where some of them may not be inspected (periplus_common.private_process), ports of this user whose process is not
    known count as theirs.
    """
    found = [_listeners(process) for process in {process for pid in pids for process in process_tree(pid)}]
    known = [listener for each in found if each is not None for listener in each]
    unknown = _unattributed() if None in found else []
    return sorted([*known, *unknown], key=lambda listener: listener.port)


def _listeners(process: psutil.Process) -> list[Listener] | None:
    """The ports of one process; None where it may not be inspected."""
    try:
        with as_user_of(process):
            connections = process.net_connections(kind="tcp")
        return [
            Listener(process.pid, process.name(), _host(connection.laddr.ip), connection.laddr.port)
            for connection in connections
            if connection.status == psutil.CONN_LISTEN
        ]
    except psutil.NoSuchProcess:  # it ended meanwhile, as a backend of Postgres does with its connection
        return []
    except psutil.AccessDenied:
        # The files of a process below /proc become root's when it ends, too.
        return [] if _has_ended(process) else None


def _unattributed() -> list[Listener]:
    """The listening sockets of this user that no process which may be inspected has."""
    own = _ports_of(os.geteuid())
    return [
        Listener(0, "a process of this user", _host(connection.laddr.ip), connection.laddr.port)
        for connection in psutil.net_connections(kind="tcp")
        if connection.laddr
        and connection.status == psutil.CONN_LISTEN
        and connection.pid is None
        and connection.laddr.port in own
    ]


def _ports_of(uid: int) -> set[int]:
    """The TCP ports that a user listens on."""
    ports = set()
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        with suppress(FileNotFoundError):
            for line in table.read_text(encoding="ascii").splitlines()[1:]:
                _, local, _, state, _, _, _, owner, *_ = line.split()
                if state == _LISTEN and int(owner) == uid:
                    ports.add(int(local.rpartition(":")[2], 16))
    return ports


def _has_ended(process: psutil.Process) -> bool:
    """Whether a process ends within the next tenth of a second."""
    for _ in range(10):
        with suppress(psutil.NoSuchProcess):
            if process.status() != psutil.STATUS_ZOMBIE:
                time.sleep(0.01)
                continue
        return True
    return False


def _host(ip: str) -> str:
    """The IPv4 address where it is written as IPv6: gRPC serves both on one socket, with ::ffff:127.0.0.1."""
    return ip.removeprefix("::ffff:")


@dataclass(frozen=True)
class Memory:
    """Bytes of memory of a process and its descendants."""

    resident: int
    """Pages that several processes share count once for each process."""
    proportional: int
    """Pages that several processes share count once; 0 where the system does not report it of each process."""


def memory(pid: int) -> Memory:
    """The memory of a process and its descendants."""
    resident, proportional = 0, [0]
    for process in process_tree(pid):
        with suppress(psutil.NoSuchProcess), as_user_of(process):
            resident += process.memory_info().rss
            proportional.append(_proportional(process))
    return Memory(resident, sum(proportional) if all(proportional[1:]) else 0)


def _proportional(process: psutil.Process) -> int:
    try:
        return int(getattr(process.memory_full_info(), "pss", 0))
    except psutil.AccessDenied:
        return 0


def process_tree(pid: int) -> list[psutil.Process]:
    """A process and all its descendants; empty if there is no such process."""
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


@contextmanager
def as_user_of(process: psutil.Process) -> Iterator[None]:
    """Let this thread of a process of root's read the files below /proc of a process that another user runs.

    In a container root lacks CAP_SYS_PTRACE, and the kernel refuses them to everybody but that user. Raises
    psutil.NoSuchProcess.
    """
    if sys.platform != "linux" or os.geteuid() != 0 or process.uids().effective == 0:
        yield
        return
    uid, gid = process.uids().effective, process.gids().effective
    # In contrast to seteuid these change the thread alone, and no right but that to files.
    libc = ctypes.CDLL(None)
    death_signal, dumpable = ctypes.c_int(), libc.prctl(_PR_GET_DUMPABLE, 0, 0, 0, 0)
    libc.prctl(_PR_GET_PDEATHSIG, ctypes.byref(death_signal), 0, 0, 0)
    libc.setfsgid(gid)
    libc.setfsuid(uid)
    try:
        yield
    finally:
        libc.setfsuid(0)
        libc.setfsgid(0)
        # The kernel answers both changes by clearing the death signal and by closing this process' files below /proc.
        libc.prctl(_PR_SET_PDEATHSIG, death_signal.value, 0, 0, 0)
        libc.prctl(_PR_SET_DUMPABLE, dumpable, 0, 0, 0)
