"""A pool of root folders for steps; each holds an empty mount point for each top-level name of the host.

Making and removing some 30 folders per step costs more than the step itself (ext4 is slow to reuse inodes that
were freed a moment ago), so the root of an ended step is cleaned and used again.
"""

from collections import deque
from pathlib import Path
from typing import Any

from periplus_local.argo.executor.cleanup import remove
from periplus_local.argo.executor.filesystem import StepFilesystem

# Private folders of each step below its root: emptied for the next step, and not removed.
PRIVATE_FOLDERS: dict[str, Any] = {"tmp": {}, "argo": {"staging": {}}}


class RootPool:
    """Clean roots in a folder of their own, at most `max_roots`. Safe to use from threads."""

    def __init__(self, folder: Path, max_roots: int) -> None:
        self._folder = folder
        self._max_roots = max_roots
        self._clean: deque[Path] = deque()
        self._released = 0

    def open(self) -> None:
        """Start with an empty pool."""
        remove(self._folder)
        self._folder.mkdir()

    def acquire(self, filesystem: StepFilesystem) -> None:
        """Put a root, a clean one or a new one, at `filesystem.root`."""
        try:
            clean = self._clean.popleft()
        except IndexError:
            Path(filesystem.root).mkdir()
            return
        clean.rename(filesystem.root)
        for name in filesystem.hidden:
            remove(Path(filesystem.root) / name)

    def release(self, filesystem: StepFilesystem) -> None:
        """Clean the root of an ended step and return it to the pool, unless the pool is full."""
        root = Path(filesystem.root)
        if not filesystem.namespaces or len(self._clean) >= self._max_roots:
            return
        root.chmod(0o755)
        for path in list(root.iterdir()):
            if path.name not in PRIVATE_FOLDERS and not (
                _is_mount_point(path, filesystem) and _is_empty(path)
            ):
                remove(path)
        _empty(root, PRIVATE_FOLDERS)
        self._released += 1
        pooled = self._folder / str(self._released)
        root.rename(pooled)
        self._clean.append(pooled)


def _is_mount_point(path: Path, filesystem: StepFilesystem) -> bool:
    """Whether the entry stands for a top-level name of the host that is still what it was for the step."""
    host = Path("/") / path.name
    if path.name in filesystem.hidden:
        return False
    if host.is_symlink() or path.is_symlink():
        return host.is_symlink() and path.is_symlink() and host.readlink() == path.readlink()
    return host.exists() and host.is_dir() == path.is_dir()


def _is_empty(path: Path) -> bool:
    """Whether a step wrote nothing below a mount point, as it can through its working folder."""
    try:
        return path.is_symlink() or (path.stat().st_size == 0 if path.is_file() else not any(path.iterdir()))
    except PermissionError:
        return False


def _empty(folder: Path, keep: dict[str, Any]) -> None:
    """Empty the folders of `keep`; a link that a step put in place of one is not followed."""
    for name, inner in keep.items():
        path = folder / name
        if path.is_symlink() or not path.is_dir():
            remove(path)
            continue
        path.chmod(0o755)
        for child in list(path.iterdir()):
            if child.name not in inner:
                remove(child)
        _empty(path, inner)
