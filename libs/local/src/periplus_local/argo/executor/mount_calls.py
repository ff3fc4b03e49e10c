"""The system calls of mounts (Linux). Each raises OSError that names the mount that failed."""

# Paths are strings here: they go to system calls in a process that must start quickly.
# ruff: noqa: PTH102, PTH114, PTH115, PTH116, PTH211

import ctypes
import os
import stat

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_RELATIME = 1, 2, 4, 8, 32, 1 << 21
MS_BIND, MS_MOVE, MS_REC, MS_UNBINDABLE, MS_PRIVATE, MS_SLAVE = 4096, 8192, 16384, 1 << 17, 1 << 18, 1 << 19
MNT_DETACH = 2

_libc = ctypes.CDLL(None, use_errno=True)


def unshare(flags: int) -> None:
    """Move this process to new namespaces."""
    check(_libc.unshare(flags), "unshare")


def mount(source: str | None, target: str, flags: int, kind: str | None = None, options: str = "") -> None:
    """Mount a file system of this kind, or change a mount, as the flags say."""
    texts = [None if text is None else os.fsencode(text) for text in (source, target, kind)]
    code = _libc.mount(*texts, ctypes.c_ulong(flags), options.encode() or None)
    check(code, f"mount {source or 'none'} at {target}")


def graft(source: str, target: str) -> None:
    """Make `source` appear at `target` with all that is mounted in it; the mount point may exist already."""
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
    mount(source, target, MS_BIND | MS_REC)


def make_read_only(target: str) -> None:
    """Make a mount read-only. An unprivileged user may add that flag but must keep the others."""
    if os.path.islink(target) or not os.path.lexists(target):
        return  # a link, or nothing that this user may examine
    flags = os.statvfs(target).f_flag
    kept = flags & (os.ST_NOSUID | os.ST_NODEV | os.ST_NOEXEC | os.ST_NOATIME | os.ST_NODIRATIME)
    mount(
        None, target, MS_REMOUNT | MS_BIND | MS_RDONLY | kept | (MS_RELATIME if flags & os.ST_RELATIME else 0)
    )


def make_folder_read_only(folder: str) -> None:
    """Make a folder read-only, with all that is mounted in it."""
    mount(folder, folder, MS_BIND | MS_REC)
    for at in mounts_below(folder):
        make_read_only(at)


def mounts_below(folder: str) -> list[str]:
    """The mount points of this namespace that are the folder or lie below it."""
    with open("/proc/self/mountinfo", errors="surrogateescape") as file:  # noqa: PTH123
        points = [line.split(" ", 5)[4] for line in file]
    listed = folder.replace("\\", "\\134").replace(" ", "\\040")
    below = [at for at in dict.fromkeys(points) if at == listed or at.startswith(listed.rstrip("/") + "/")]
    return [at.replace("\\040", " ").replace("\\134", "\\") for at in below]


def pivot(root: str) -> None:
    """Make `root`, a mount, the root of this process, without the old one."""
    os.chdir(root)
    check(_libc.pivot_root(b".", b"."), "pivot_root")
    check(_libc.umount2(b".", MNT_DETACH), "umount /")
    os.chdir("/")


def check(code: int, what: str) -> None:
    """Raise OSError of the last call unless it gave 0."""
    if code != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
