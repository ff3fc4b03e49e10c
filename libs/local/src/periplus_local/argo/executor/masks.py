"""The folders and sockets of the machine that no step sees, with what is found there now."""

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from periplus_local.argo.executor.filesystem import is_under

# Whoever can connect to these runs commands outside of every namespace.
SOCKETS = (
    "/run/buildkit", "/run/containerd", "/run/crio", "/run/dbus", "/run/docker.sock", "/run/libvirt", "/run/podman",
    "/run/screen", "/run/snapd.socket", "/run/systemd/private",
)  # fmt: skip
_MOUNTINFO = Path("/proc/self/mountinfo")


@dataclass(frozen=True)
class Mask:
    """A path to hide. `identity` is the device and inode that must be found there; None: hide what is there, if anything."""

    path: str
    identity: tuple[int, int] | None = None


class Masks:
    """What to hide, found once, and again when the list of other folders has changed."""

    def __init__(self, hidden: Iterable[Path], listed: Path | None) -> None:
        """`hidden` are folders that must be where they were found; `listed` is a folder of files that name others."""
        self._listed = listed
        self._changed_at = 0
        self._others: list[Mask] = []
        self._fixed = [*_folders(hidden), *_sockets()]

    def current(self) -> list[Mask]:
        """What to hide now."""
        if self._listed is None:
            return self._fixed
        try:
            changed_at = self._listed.stat().st_mtime_ns
        except FileNotFoundError:
            return self._fixed
        if changed_at != self._changed_at:
            self._changed_at, self._others = changed_at, self._find_others(self._listed)
        return [*self._fixed, *self._others]

    def _find_others(self, listed: Path) -> list[Mask]:
        paths = []
        for file in listed.iterdir():
            with suppress(OSError):  # another stack has just removed it
                paths.append(Path(file.read_text(encoding="utf-8", errors="surrogateescape")))
        hidden = [mask.path for mask in self._fixed]
        found = (mask.path for mask in _folders(path for path in paths if path.is_absolute()))
        return [Mask(path) for path in found if not any(is_under(path, other) for other in hidden)]


def _folders(hidden: Iterable[Path]) -> list[Mask]:
    """The existing ones under each path that leads to them, without those inside of others."""
    found: dict[str, Mask] = {}
    for folder in sorted({each.resolve() for each in hidden}, key=lambda each: len(each.parts)):
        if not folder.is_dir() or any(is_under(str(folder), path) for path in found):
            continue
        status = folder.stat()
        for path in (str(folder), *_other_paths(str(folder))):
            found[path] = Mask(path, (status.st_dev, status.st_ino))
    return list(found.values())


def _sockets() -> list[Mask]:
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    folders = {*SOCKETS, f"/run/user/{os.geteuid()}", *([runtime] if runtime.startswith("/run/") else [])}
    return [Mask(path) for path in sorted(folders)]


def _other_paths(folder: str) -> list[str]:
    """The paths by which other mounts of the folder's file system lead to the folder."""
    if not _MOUNTINFO.exists():
        return []
    mounts = [line.split(" ", 5)[2:5] for line in _MOUNTINFO.read_text(errors="surrogateescape").splitlines()]
    table = [(device, _plain(root), _plain(at)) for device, root, at in mounts]
    own = [entry for entry in table if is_under(folder, entry[2])]
    device, root, at = max(reversed(own), key=lambda entry: len(entry[2]))
    inside = os.path.normpath(
        f"{root}/{os.path.relpath(folder, at)}"
    )  # the folder as the file system names it
    found = []
    for other_device, other_root, other_at in table:
        if other_device == device and is_under(inside, other_root):
            path = _joined(other_at, os.path.relpath(inside, other_root))
            if path != folder and _is_same(path, folder):
                found.append(path)
    return found


def _joined(folder: str, relative: str) -> str:
    return os.path.normpath(f"{folder.rstrip('/')}/{relative}")


def _is_same(path: str, folder: str) -> bool:
    try:
        return Path(path).samefile(folder)
    except OSError:
        return False  # behind a mount on top, or a folder that this user may not enter


def _plain(text: str) -> str:
    r"""A path of /proc/self/mountinfo, which has blanks and such as `\040`."""
    if "\\" not in text:
        return text
    octal = text.encode("utf-8", "surrogateescape").decode("unicode_escape")
    return octal.encode("latin-1").decode("utf-8", "surrogateescape")
