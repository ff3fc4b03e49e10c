"""The mount namespace of an unprivileged user."""

import ctypes
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from periplus_local.argo.executor import mount_namespace
from periplus_local.argo.executor.filesystem import plan_filesystem

NOBODY = 65534
PR_SET_DUMPABLE = 4


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every user can reach."""
    path = Path(f"/var/tmp/periplus-namespace-{os.getpid()}")
    path.mkdir()
    try:
        yield path
    finally:
        shutil.rmtree(path)


def as_ordinary_user(work: str, spec: dict[str, object]) -> str:
    """Run some lines in a process of an ordinary user, in the filesystem of `spec`; what went wrong, if anything."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
                # A process that gave up its rights does not own its files in /proc, else.
                ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)
            mount_namespace.enter_user_namespace()
            mount_namespace.enter(spec)
            exec(work, {"os": os})
        except BaseException as error:  # noqa: BLE001 - sent to the test
            os.write(writer, repr(error).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as errors:
        text = errors.read().decode()
    os.waitpid(pid, 0)
    return text


def test_an_unprivileged_user_gets_a_private_root(folder: Path) -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("needs Linux")
    filesystem = plan_filesystem(folder, ["/usr/share/of-pod/x", "/opt-of-pod/y"], [], namespaces=True)
    for folder_path in (
        f"{filesystem.root}/tmp",
        f"{filesystem.root}/opt-of-pod",
        *(s.storage for s in filesystem.overlays),
    ):
        Path(folder_path).mkdir(parents=True)
    if os.geteuid() == 0:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, NOBODY, NOBODY)
    nothing = as_ordinary_user("", filesystem.mount_spec())
    if "unshare" in nothing:
        pytest.skip(nothing)
    assert nothing == ""
    work = """
assert os.listdir("/tmp") == [], os.listdir("/tmp")
assert os.path.exists("/bin/sh") and os.listdir("/usr/share") and os.listdir("/proc/self")
os.mkdir("/usr/share/of-pod")
for path in ("/usr/share/of-pod/x", "/opt-of-pod/y", "/tmp/z", "/new-of-pod"):
    open(path, "w").write(path)
"""
    assert as_ordinary_user(work, filesystem.mount_spec()) == ""
    assert Path(filesystem.host_path("/usr/share/of-pod/x")).read_text() == "/usr/share/of-pod/x"
    assert Path(filesystem.host_path("/opt-of-pod/y")).read_text() == "/opt-of-pod/y"
    assert Path(filesystem.host_path("/tmp/z")).read_text() == "/tmp/z"
    assert not any(map(os.path.exists, ("/usr/share/of-pod", "/opt-of-pod", "/new-of-pod", "/tmp/z")))
