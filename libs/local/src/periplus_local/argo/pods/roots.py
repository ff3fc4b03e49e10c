"""Root folders of steps, used again: each holds an empty mount point for each top-level name.

Making and removing some 25 folders per step costs more than the step (ext4 is slow to give out
inodes that were freed a moment ago), so a root that is no longer used is cleaned and kept.
"""

import shutil
from collections import deque
from pathlib import Path

from periplus_local.argo.pods.view import View


class Roots:
    """Roots that wait for their next step, in a folder of their own. Safe to use from threads."""

    def __init__(self, folder: Path, most: int) -> None:
        self._folder = folder
        self._most = most
        self._waiting: deque[Path] = deque()
        self._made = 0

    def open(self) -> None:
        """Start with none."""
        shutil.rmtree(self._folder, ignore_errors=True)
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
            _remove(Path(view.root) / name)

    def give(self, view: View) -> None:
        """Keep the mount points of a root that no step uses any more, and remove the rest."""
        root = Path(view.root)
        if not view.namespaces or len(self._waiting) >= self._most:
            return
        mount_points = {path.name for path in Path("/").iterdir()} - {"tmp", "argo", *view.hidden}
        for path in list(root.iterdir()):
            if path.name not in mount_points:
                _remove(path)
        root.chmod(0o755)
        self._made += 1
        kept = self._folder / str(self._made)
        root.rename(kept)
        self._waiting.append(kept)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif path.is_symlink() or path.exists():
        path.unlink()
