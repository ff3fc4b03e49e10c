"""The private file system of a step: a mount namespace with a root of its own (Linux only).

`Isolation` says how a user gets one: as root, or in a user namespace, which the fork server enters once for all steps. A
confined step has a PID and an IPC namespace too, sees its own processes in /proc, and has hardly any capability.
"""

# Paths are strings here: they go to system calls in a process that must start quickly.
# ruff: noqa: PTH112, PTH102, PTH103, PTH110, PTH120, PTH123, PTH208, PTH211

import errno
import os
import stat
import sys
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from periplus_local.argo.executor import capabilities
from periplus_local.argo.executor.mount_calls import (
    MS_BIND,
    MS_MOVE,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_PRIVATE,
    MS_RDONLY,
    MS_REC,
    MS_SLAVE,
    MS_UNBINDABLE,
    graft,
    make_folder_read_only,
    make_read_only,
    mount,
    pivot,
    unshare,
)

Isolation = Literal["mount", "user+mount", "none"]

CLONE_NEWNS, CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID = 0x00020000, 0x08000000, 0x10000000, 0x20000000
# What root's steps find in /dev: what a container has, and the devices that compute.
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
ACCELERATORS = ("nvidia", "dri", "kfd", "accel", "davinci", "hisi", "infiniband")
# Root may write to these, and the kernel then runs a program outside of every namespace, or stops the machine.
KERNEL_FILES = ("/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus", "/proc/fs")


class Support(NamedTuple):
    """What works for this user: `reason` says why there is no mount namespace, `exposure` why steps are not confined."""

    isolation: Isolation
    reason: str
    exposure: str


def enter_user_namespace() -> None:
    """Move this process to a user namespace that has its user alone. Raises OSError."""
    uid, gid = os.geteuid(), os.getegid()
    unshare(CLONE_NEWUSER)
    _write("/proc/self/setgroups", "deny")
    _write("/proc/self/uid_map", f"{uid} {uid} 1")
    _write("/proc/self/gid_map", f"{gid} {gid} 1")


def prepare_host(isolation: Isolation, read_only: list[str], staging: str) -> None:
    """Move this process to a mount namespace with the machine's files as confined steps may see them, and bound their rights.

    `read_only` are folders that no step may change; `staging` is an empty folder. Mounts that the machine gets later are
    added. Raises OSError.
    """
    unshare(CLONE_NEWNS)
    mount(None, "/", MS_REC | MS_SLAVE)
    for folder in read_only:
        make_folder_read_only(folder)
    if isolation == "mount":
        make_folder_read_only("/sys")
        _replace_devices(staging)
    capabilities.bound(_kept(isolation))


def unshare_processes() -> None:
    """Have the next child of this process be the first process of a new PID namespace. Raises OSError."""
    unshare(CLONE_NEWPID)


def enter(spec: dict[str, Any], *, confined: bool = False) -> None:
    """Move this process and its later children to the file system of `spec` (StepFilesystem.mount_spec).

    A confined process must be the first of its PID namespace. Raises OSError that names the mount that failed; the
    process must then end.
    """
    unshare(CLONE_NEWNS | (CLONE_NEWIPC if confined else 0))
    mount(None, "/", MS_REC | MS_PRIVATE)
    root = spec["root"]
    mount(root, root, MS_BIND)
    if confined:
        _mount_own_kernel_files()
    # The working folder is the step's root without the host's folders, which are mounted into it below.
    os.makedirs(root + spec["work"], exist_ok=True)
    mount(root, root + spec["work"], MS_BIND)
    # A step may check that its volume is a mount. Volumes in a folder of the host are mounted after that folder.
    in_root = [volume for volume in spec["volumes"] if os.path.isdir(root + volume)]
    for volume in in_root:
        mount(root + volume, root + volume, MS_BIND)
    # Unbindable: else a recursive bind of the folder that holds the new root would include the new root.
    mount(None, root, MS_UNBINDABLE)
    for name in sorted(os.listdir("/")):
        if name not in spec["hidden"] and name not in {"tmp", "argo"}:
            graft("/" + name, f"{root}/{name}")
    for shared in spec["shared"]:
        os.makedirs(os.path.dirname(root + shared), exist_ok=True)
        graft(shared, root + shared)
        # A step may empty its /tmp, as it may in a container: the host's folders there must survive that.
        make_read_only(root + shared)
    for folder, storage, hidden in spec["overlays"]:
        _overlay(root, folder, storage, hidden)
    for volume in set(spec["volumes"]) - set(in_root):
        mount(root + volume, root + volume, MS_BIND)
    pivot(root)
    # In the new root: a link that another step made must not lead the mask to the old one.
    for path, identity in spec["masks"]:
        _mask(path, identity)


def confine(isolation: Isolation) -> None:
    """Give up the capabilities that a confined step does not have, after `prepare_host`. Raises OSError."""
    capabilities.drop(_kept(isolation))


def _kept(isolation: Isolation) -> frozenset[int]:
    return capabilities.OF_ROOT if isolation == "mount" else frozenset()


def _mount_own_kernel_files() -> None:
    mount("proc", "/proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, "proc")
    if os.geteuid() == 0:
        for path in KERNEL_FILES:
            if os.path.exists(path):
                mount(path, path, MS_BIND)
                make_read_only(path)
    if os.path.isdir("/dev/shm"):  # noqa: S108 - where shared memory is
        mount("tmpfs", "/dev/shm", MS_NOSUID | MS_NODEV, "tmpfs", "mode=1777")  # noqa: S108
    if os.path.isdir("/dev/pts"):
        mount("devpts", "/dev/pts", MS_NOSUID | MS_NOEXEC, "devpts", "newinstance,ptmxmode=0666,mode=620")


def _replace_devices(staging: str) -> None:
    """Put a /dev in place of the machine's that has no disks."""
    mount("tmpfs", staging, MS_NOSUID, "tmpfs", "mode=755,size=64k")
    for name in os.listdir("/dev"):
        if name in DEVICES or name.startswith(ACCELERATORS):
            graft(f"/dev/{name}", f"{staging}/{name}")
    for name in ("pts", "shm"):
        os.mkdir(f"{staging}/{name}")
    for name, target in {"ptmx": "pts/ptmx", "fd": "/proc/self/fd"}.items():
        os.symlink(target, f"{staging}/{name}")
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        os.symlink(f"/proc/self/fd/{number}", f"{staging}/{name}")
    make_read_only(staging)
    mount(staging, "/dev", MS_MOVE)


def _overlay(root: str, folder: str, storage: str, hidden: list[str]) -> None:
    mount(storage, root + folder, MS_BIND)
    # A folder that this user cannot list (/root, say) is simply empty for the step.
    names = os.listdir(folder) if os.access(folder, os.R_OK | os.X_OK) else []
    for name in names:
        if name not in hidden:
            graft(f"{folder}/{name}", f"{root}{folder}/{name}")


def _mask(path: str, identity: Sequence[int] | None) -> None:
    """Put nothing in place of a folder or a file. `identity` (device and inode) is what must be found there, else anything may.

    By a descriptor: another step may rename a folder above it between the check and the mount.
    """
    try:
        descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW)
    except OSError:
        if identity is None:
            return  # nothing, or nothing that this user can reach
        raise
    try:
        found = os.fstat(descriptor)
        if identity is not None and (found.st_dev, found.st_ino) != tuple(identity):
            raise OSError(errno.ESTALE, f"{path} is another folder than at the start; start Periplus again")
        at = f"/proc/self/fd/{descriptor}"
        if stat.S_ISDIR(found.st_mode):
            mount("tmpfs", at, MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, "tmpfs", "mode=555,size=4k")
        elif not stat.S_ISLNK(found.st_mode):
            mount("/dev/null", at, MS_BIND)
    finally:
        os.close(descriptor)


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def probe(folder: str, wanted: bool) -> Support:
    """The best isolation that works for this user, each tried in a child process, and why it is not better.

    `folder` must be an empty folder of the file system that steps will use. This process must have one thread, and no
    library that does anything when it forks: `support.find` starts one.
    """
    if not wanted:
        return Support("none", "not wanted", "not wanted")
    if not sys.platform.startswith("linux"):
        reason = f"{sys.platform} has no mount namespaces"
        return Support("none", reason, reason)
    kinds: tuple[Isolation, ...] = ("mount", "user+mount") if os.geteuid() == 0 else ("user+mount",)
    reason = exposure = ""
    for confined in (True, False):
        for isolation in kinds:
            trial = f"{folder}/{isolation}-{confined}"
            os.makedirs(f"{trial}/root/tmp")
            os.makedirs(f"{trial}/staging")
            reason = _failure(isolation, trial, confined=confined)
            if not reason:
                return Support(isolation, "", exposure)
            exposure = exposure or reason
    return Support("none", reason, exposure)


def _failure(isolation: Isolation, trial: str, *, confined: bool) -> str:
    """Why a process cannot enter the namespaces; empty when it can."""
    root = f"{trial}/root"
    spec = {"root": root, "work": "/argo/work", "hidden": [], "shared": [], "overlays": [], "volumes": []}
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            if isolation == "user+mount":
                enter_user_namespace()
            if confined:
                prepare_host(isolation, [], f"{trial}/staging")
                unshare_processes()
                if first := os.fork():
                    os._exit(os.waitstatus_to_exitcode(os.waitpid(first, 0)[1]) & 255)
            enter({**spec, "masks": []}, confined=confined)
            if confined:
                confine(isolation)
            code = 0
        except OSError as error:
            os.write(writer, str(error).encode())
        finally:
            os._exit(code)
    os.close(writer)
    with open(reader, "rb") as answer:
        text = answer.read().decode()
    status = os.waitpid(pid, 0)[1]
    return text or (f"the trial ended with {os.waitstatus_to_exitcode(status)}" if status else "")
