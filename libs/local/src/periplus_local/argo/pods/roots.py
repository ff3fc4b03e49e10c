"""Root folders of steps, used again: each holds an empty mount point for each top-level name.

Making and removing some 30 folders per step costs more than the step (ext4 is slow to give out
inodes that were freed a moment ago), so a root that is no longer used is cleaned and kept.
"""

from collections import deque
from pathlib import Path
from typing import Any

from periplus_local.argo.pods.removal import remove
from periplus_local.argo.pods.view import View

# The folders that each step has for itself, to be emptied and not removed.
OWN_FOLDERS: dict[str, Any] = {"tmp": {}, "argo": {"staging": {}}}


class Roots:
    """Roots that wait for their next step, in a folder of their own. Safe to use from threads."""

    def __init__(self, folder: Path, most: int) -> None:
        self._folder = folder
        self._most = most
        self._waiting: deque[Path] = deque()
        self._made = 0

    def open(self) -> None:
        """Start with none."""
        remove(self._folder)
        self._folder.mkdir()

    def take(self, view: View) -> None:
        """Put a root where the view has its own."""
        try:
            waiting = self._waiting.popleft()
        except IndexError:
            Path(view.root).mkdir()
            return
        waiting.rename(view.root)
        for name in view.hidden:
            remove(Path(view.root) / name)

    def give(self, view: View) -> None:
        """Keep the mount points of a root that no step uses any more, and remove the rest."""
        root = Path(view.root)
        if not view.namespaces or len(self._waiting) >= self._most:
            return
        root.chmod(0o755)
        for path in list(root.iterdir()):
            if path.name not in OWN_FOLDERS and not (_is_mount_point(path, view) and _is_empty(path)):
                remove(path)
        _empty(root, OWN_FOLDERS)
        self._made += 1
        kept = self._folder / str(self._made)
        root.rename(kept)
        self._waiting.append(kept)


def _is_mount_point(path: Path, view: View) -> bool:
    """Whether it stands for the same name of this machine, as it was when the root was made."""
    machine = Path("/") / path.name
    if path.name in view.hidden:
        return False
    if machine.is_symlink() or path.is_symlink():
        return machine.is_symlink() and path.is_symlink() and machine.readlink() == path.readlink()
    return machine.exists() and machine.is_dir() == path.is_dir()


def _is_empty(path: Path) -> bool:
    """Whether nothing was put where the machine's own covers it, as a step can from its working folder."""
    try:
        return path.is_symlink() or (path.stat().st_size == 0 if path.is_file() else not any(path.iterdir()))
    except PermissionError:
        return False


def _empty(folder: Path, keep: dict[str, Any]) -> None:
    """Empty the folders of `keep`; a link that a step put in the place of one is not followed."""
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
