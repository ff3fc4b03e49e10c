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

import psutil

_PR_SET_PDEATHSIG, _PR_GET_PDEATHSIG, _PR_SET_DUMPABLE = 1, 2, 4


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
    """Every TCP port that these processes and their descendants listen on, by port."""
    processes = {process for pid in pids for process in process_tree(pid)}
    found = [listener for process in processes for listener in _listeners(process)]
    return sorted(found, key=lambda listener: listener.port)


def _listeners(process: psutil.Process) -> list[Listener]:
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
        if _has_ended(process):  # the files of a process below /proc become root's when it ends
            return []
        raise


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
    """Pages that several processes share count once; 0 where the system does not report it."""


def memory(pid: int) -> Memory:
    """The memory of a process and its descendants."""
    resident = proportional = 0
    for process in process_tree(pid):
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied), as_user_of(process):
            resident += process.memory_info().rss
            proportional += getattr(process.memory_full_info(), "pss", 0)
    return Memory(resident, proportional)


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
    death_signal = ctypes.c_int()
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
        libc.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)
