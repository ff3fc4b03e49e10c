"""The private file system of a step: a mount namespace with a root of its own (Linux only)."""

# Paths are strings here: they go to system calls in a process that must start quickly.
# ruff: noqa: PTH112, PTH116, PTH102, PTH103, PTH114, PTH115, PTH120, PTH123, PTH208, PTH211

import ctypes
import os
import stat
import sys
from typing import Any, Literal

Isolation = Literal["mount", "user+mount", "none"]

CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000
MS_BIND, MS_REC, MS_PRIVATE, MS_UNBINDABLE = 4096, 16384, 1 << 18, 1 << 17
MS_RDONLY, MS_REMOUNT, MS_RELATIME = 1, 32, 1 << 21
MNT_DETACH = 2

_libc = ctypes.CDLL(None, use_errno=True)


def enter(isolation: Isolation, spec: dict[str, Any]) -> None:
    """Move this process and its later children to the file system of `spec` (StepFilesystem.mount_spec).

    Raises OSError that names the mount that failed; the process must then end.
    """
    _unshare(isolation)
    _mount(None, "/", MS_REC | MS_PRIVATE)
    root = spec["root"]
    _mount(root, root, MS_BIND)
    # The working folder is the step's root without the host's folders, which are mounted into it below.
    os.makedirs(root + spec["work"], exist_ok=True)
    _mount(root, root + spec["work"], MS_BIND)
    # A step may check that its volume is a mount. Volumes in a folder of the host are mounted after that folder.
    in_root = [volume for volume in spec["volumes"] if os.path.isdir(root + volume)]
    for volume in in_root:
        _mount(root + volume, root + volume, MS_BIND)
    # Unbindable: else a recursive bind of the folder that holds the new root would include the new root.
    _mount(None, root, MS_UNBINDABLE)
    for name in sorted(os.listdir("/")):
        if name not in spec["hidden"] and name not in {"tmp", "argo"}:
            _graft("/" + name, f"{root}/{name}")
    for shared in spec["shared"]:
        os.makedirs(os.path.dirname(root + shared), exist_ok=True)
        _graft(shared, root + shared)
        # A step may empty its /tmp, as it may in a container: the host's folders there must survive that.
        _make_read_only(root + shared)
    for folder, storage, hidden in spec["overlays"]:
        _overlay(root, folder, storage, hidden)
    for volume in set(spec["volumes"]) - set(in_root):
        _mount(root + volume, root + volume, MS_BIND)
    _pivot(root)


def _unshare(isolation: Isolation) -> None:
    uid, gid = os.geteuid(), os.getegid()
    flags = CLONE_NEWNS | (CLONE_NEWUSER if isolation == "user+mount" else 0)
    _check(_libc.unshare(flags), "unshare")
    if isolation == "user+mount":
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"{uid} {uid} 1")
        _write("/proc/self/gid_map", f"{gid} {gid} 1")


def _overlay(root: str, folder: str, storage: str, hidden: list[str]) -> None:
    _mount(storage, root + folder, MS_BIND)
    # A folder that this user cannot list (/root, say) is simply empty for the step.
    names = os.listdir(folder) if os.access(folder, os.R_OK | os.X_OK) else []
    for name in names:
        if name not in hidden:
            _graft(f"{folder}/{name}", f"{root}{folder}/{name}")


def _graft(source: str, target: str) -> None:
    """Make `source` of the host appear at `target`; the mount point may exist already."""
    if os.path.islink(source):
        if not os.path.lexists(target):
            os.symlink(os.readlink(source), target)
        return
    try:
        folder = stat.S_ISDIR(os.stat(source).st_mode)
    except (PermissionError, FileNotFoundError):
        return  # another user's mount, which cannot even be examined; or it was just removed
    if not os.path.lexists(target):
        if folder:
            os.mkdir(target)
        else:
            os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o600))
    _mount(source, target, MS_BIND | MS_REC)


def _make_read_only(target: str) -> None:
    """Make a mount read-only. An unprivileged user may add that flag but must keep the others."""
    if os.path.islink(target) or not os.path.lexists(target):
        return  # a link, or nothing that this user may examine
    flags = os.statvfs(target).f_flag
    kept = flags & (os.ST_NOSUID | os.ST_NODEV | os.ST_NOEXEC | os.ST_NOATIME | os.ST_NODIRATIME)
    _mount(
        None, target, MS_REMOUNT | MS_BIND | MS_RDONLY | kept | (MS_RELATIME if flags & os.ST_RELATIME else 0)
    )


def _pivot(root: str) -> None:
    os.chdir(root)
    _check(_libc.pivot_root(b".", b"."), "pivot_root")
    _check(_libc.umount2(b".", MNT_DETACH), "umount /")
    os.chdir("/")


def _mount(source: str | None, target: str, flags: int) -> None:
    origin = None if source is None else os.fsencode(source)
    code = _libc.mount(origin, os.fsencode(target), None, ctypes.c_ulong(flags), None)
    _check(code, f"mount {source or 'none'} at {target}")


def _check(code: int, what: str) -> None:
    if code != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def probe(folder: str, wanted: bool) -> tuple[Isolation, str]:
    """The best isolation that works for this user, each tried in a child process, and why `none` if so.

    `folder` must be an empty folder of the file system that steps will use.
    """
    if not wanted:
        return "none", "not wanted"
    if not sys.platform.startswith("linux"):
        return "none", f"{sys.platform} has no mount namespaces"
    reason = ""
    kinds: tuple[Isolation, ...] = ("mount", "user+mount") if os.geteuid() == 0 else ("user+mount",)
    for number, isolation in enumerate(kinds):
        root = f"{folder}/{number}/root"
        os.makedirs(f"{root}/tmp")  # noqa: S108 - in a folder of our own
        spec = {"root": root, "work": "/argo/work", "hidden": [], "shared": [], "overlays": [], "volumes": []}
        reason = _failure(isolation, spec)
        if not reason:
            return isolation, ""
    return "none", reason


def _failure(isolation: Isolation, spec: dict[str, Any]) -> str:
    """Why a process cannot enter the namespace; empty when it can."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            enter(isolation, spec)
        except OSError as error:
            os.write(writer, str(error).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as answer:
        text = answer.read().decode()
    os.waitpid(pid, 0)
    return text
