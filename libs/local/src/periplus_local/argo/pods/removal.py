"""The removal of what a step has written: all of it, and nothing of the machine's own."""

import errno
import os
import shutil
from pathlib import Path

MOUNTS = Path("/proc/self/mounts")


def remove(path: Path) -> None:
    """Remove a file, a link or a whole folder, if it is there; links are not followed.

    Mounts of a step exist in its own namespace only. Should one ever be seen here, what it shows
    is not ours to remove, and OSError is raised.
    """
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    _refuse_mounts(path)
    try:
        shutil.rmtree(path)
    except PermissionError:
        _open_folders(path)
        shutil.rmtree(path)


def _refuse_mounts(path: Path) -> None:
    shown = str(path).replace(" ", "\\040")
    if MOUNTS.exists() and f" {shown}/" in MOUNTS.read_text(errors="replace"):
        raise OSError(errno.EBUSY, "something is mounted in the folder of a step", str(path))


def _open_folders(path: Path) -> None:
    """Give back the right to write that a step took from its folders."""
    path.chmod(0o700)
    for folder, names, _ in os.walk(path):
        for name in names:
            below = Path(folder) / name
            if not below.is_symlink():
                below.chmod(0o700)
