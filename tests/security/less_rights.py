"""Steps of a user who has fewer rights: a program of its own, as it gives up rights and forks."""

import asyncio  # noqa: F401 - what a hostile step imports: the user may not be able to read these modules
import ctypes
import glob  # noqa: F401
import json
import os
import re  # noqa: F401
import signal
import socket
import stat  # noqa: F401
import subprocess  # noqa: F401
import sys
import time
import zlib  # noqa: F401
from collections.abc import Callable
from pathlib import Path
from typing import Any

from periplus_local.argo.executor import capabilities, mount_namespace
from periplus_local.argo.executor.filesystem import plan_filesystem
from periplus_local.argo.executor.masks import Masks

NOBODY = 65534
PR_SET_DUMPABLE = 4
HOSTILE = Path(__file__).with_name("hostile_step.py").read_text()


def in_a_child(work: Callable[[], str]) -> str:
    """The result of the work in a process of its own, or what it raised."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            text = work()
        except BaseException as error:  # noqa: BLE001 - sent to the test
            text = repr(error)
        os.write(writer, text.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as answer:
        text = answer.read().decode()
    os.waitpid(pid, 0)
    return text


def without_namespaces() -> str:
    """What doctor says of steps."""
    from periplus_local.stack.doctor import steps

    mount_namespace.enter_user_namespace()
    Path("/proc/sys/user/max_user_namespaces").write_text("0")
    capabilities.bound(frozenset())
    capabilities.drop(frozenset())
    return steps().line()


def as_ordinary_user(folder: str) -> str:
    """What the hostile step achieves in the namespaces of an ordinary user, as the fork server makes them."""
    home, step = Path(folder, "home"), Path(folder, "home/pods/step")
    for made in (home / "secrets", step / "root/tmp", step / "staging"):
        made.mkdir(parents=True)
    (home / "secrets/token").write_text("hunter2")
    for path in (Path(folder), *Path(folder).rglob("*")):
        os.chown(path, NOBODY, NOBODY)
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    # A process that gave up its rights does not own its files in /proc, else.
    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)
    victim = os.fork()
    if victim == 0:
        time.sleep(60)
        os._exit(0)
    try:
        mount_namespace.enter_user_namespace()
        mount_namespace.prepare_host("user+mount", [], str(step / "staging"))
        mount_namespace.unshare_processes()
        return in_a_child(lambda: as_first_process(home, step, victim))
    finally:
        os.kill(victim, signal.SIGKILL)


def as_first_process(home: Path, step: Path, victim: int) -> str:
    """The same, in the first process of the step's PID namespace."""
    spec = plan_filesystem(step, [], [], namespaces=True).mount_spec()
    masks = [[mask.path, mask.identity] for mask in Masks([home], None).current()]
    mount_namespace.enter({**spec, "masks": masks}, confined=True)
    mount_namespace.confine("user+mount")
    return in_a_child(lambda: hostile(home, victim))


def hostile(home: Path, victim: int) -> str:
    """The same, in the step's own process."""
    sys.argv = ["hostile", str(home), json.dumps([victim, os.getppid()])]
    names: dict[str, Any] = {"__name__": "hostile"}
    exec(HOSTILE, names)
    return json.dumps(names["attack"]())


def reached_by_another_user(*paths: str) -> str:
    """The paths that another user can list, read or connect to, as a JSON list."""
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    return json.dumps([path for path in paths if reaches(path)])


def reaches(path: str) -> bool:
    """Whether this process can list a folder, read a file or connect to a socket."""
    place = Path(path)
    try:
        if place.is_socket():
            os.chdir(place.parent)  # as its path may be too long for an address
            socket.socket(socket.AF_UNIX).connect(place.name)
        elif place.is_dir():
            list(place.iterdir())
        else:
            place.read_bytes()
    except PermissionError:
        return False
    return True


if __name__ == "__main__":
    found = {each.__name__: each for each in (as_ordinary_user, without_namespaces, reached_by_another_user)}
    print(found[sys.argv[1]](*sys.argv[2:]))
