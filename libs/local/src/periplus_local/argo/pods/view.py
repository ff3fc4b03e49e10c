"""Which folder of this machine stands behind each path that a step sees."""

# Paths are strings here: a step's own names, which this machine need not have.
# ruff: noqa: PTH110, PTH112, PTH118, PTH119, PTH120, PTH208

import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from periplus_local.argo.pods.job import PodError

SCRIPT = "/argo/staging/script"
WORKDIR = "/argo/work"
# A step never sees the machine's own.
TMP = "/tmp"  # noqa: S108 - the private one
OWN = (TMP, "/argo")
# A private copy of a folder's listing costs one mount per entry.
MOST_ENTRIES = 4096


@dataclass(frozen=True)
class Shadow:
    """A folder that exists on this machine and that a step sees with some entries made private."""

    folder: str
    storage: str
    hidden: list[str]


@dataclass(frozen=True)
class View:
    """The file system of one step.

    `areas` maps a path of the step to where its files really lie (a kept folder lies where it
    always was); the longest match holds. `hidden` are top-level names not taken from the machine.
    """

    root: str
    areas: dict[str, str]
    kept: list[str]
    hidden: list[str]
    shadows: list[Shadow]
    namespaces: bool

    def host(self, path: str) -> str:
        """Where the file that the step calls `path` lies on this machine."""
        area = self._area(path)
        if area is not None:
            return self.areas[area] + path[len(area) :]
        if not self.namespaces:
            return path
        if not os.path.lexists("/" + path.split("/", 2)[1]):
            return self.root + path
        for shadow in reversed(self.shadows):
            if under(path, shadow.folder):
                name = path[len(shadow.folder) + 1 :].split("/", 1)[0]
                if not os.path.lexists(f"{shadow.folder}/{name}"):
                    return shadow.storage + path[len(shadow.folder) :]
        return path

    def seen(self, path: str) -> str:
        """The name under which the step finds `path`."""
        return path if self.namespaces else self.host(path)

    def private(self, path: str) -> bool:
        """Whether the step has `path` for itself."""
        area = self._area(path)
        return area is not None and area not in self.kept

    def _area(self, path: str) -> str | None:
        matches = [area for area in self.areas if under(path, area)]
        return max(matches, key=len, default=None)

    def spec(self) -> dict[str, Any]:
        """The view as the launcher reads it."""
        return {
            "root": self.root,
            "work": WORKDIR,
            "hidden": self.hidden,
            "kept": [path for path in self.kept if self.private(os.path.dirname(path))],
            "shadows": [[s.folder, s.storage, s.hidden] for s in self.shadows],
            "volumes": [],
        }

    def record(self) -> dict[str, Any]:
        """The view as JSON values; `View.read` makes it again."""
        return asdict(self)

    @classmethod
    def read(cls, record: dict[str, Any]) -> "View":
        """The view that `record` gave."""
        return cls(**{**record, "shadows": [Shadow(**shadow) for shadow in record["shadows"]]})


def plan(folder: Path, declared: Iterable[str], kept: Iterable[str], *, namespaces: bool) -> View:
    """The view of a step whose working folder is `folder` and that declares these paths.

    `/tmp` and `/argo` are always private, but for the folders in `kept`. Raises PodError for a path that cannot
    be made private.
    """
    root = f"{folder}/root"
    keep = sorted({os.path.normpath(path) for path in kept} - {"/", *OWN}, key=len)
    # An image's working folder is its "/" unless it says otherwise: what a step writes there by a relative
    # name, it finds there by the absolute one.
    own = {**{path: root + path for path in OWN}, WORKDIR: root}
    if not namespaces:
        own[root] = root  # where the step's own links lead, even when it lies below /tmp
    view = View(root, own, keep, [], [], namespaces)
    areas = view.areas
    areas.update({path: path for path in keep})
    hidden: dict[str, set[str]] = {}
    for given in sorted(set(declared), key=lambda path: path.count("/")):
        path = canonical(given, view)
        if view.private(path):
            continue
        anchor, name = _anchor(path)
        hidden.setdefault(anchor, set()).add(name)
        at = os.path.join(anchor, name)
        if anchor == "/" or not namespaces:
            areas[at] = root + at
        else:
            areas[at] = f"{folder}/shadow/{list(hidden).index(anchor)}/{name}"
    shadows = [
        Shadow(anchor, f"{folder}/shadow/{number}", sorted(names))
        for number, (anchor, names) in enumerate(hidden.items())
        if anchor != "/" and namespaces
    ]
    shadows.sort(key=lambda shadow: len(shadow.folder))
    return View(root, areas, keep, sorted(hidden.get("/", ())), shadows, namespaces)


def canonical(path: str, view: View) -> str:
    """`path` without dots, and without symbolic links in the part that this machine already has."""
    if not path.startswith("/"):
        raise PodError(f"path {path!r} must be absolute")
    path = "/" + os.path.normpath(path).lstrip("/")
    if path == "/" or under(path, "/proc") or under(path, "/sys"):
        raise PodError(f"path {path!r} cannot be private to a step")
    if view.private(path):
        return path
    return os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))


def exists(path: str) -> bool:
    """Whether this machine has it, as far as this user can see."""
    return os.path.exists(path)


def is_folder(path: str) -> bool:
    """Whether this machine has a folder there, as far as this user can see."""
    return os.path.isdir(path)


def under(path: str, folder: str) -> bool:
    """Whether `path` is `folder` or lies below it; both normalised."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _anchor(path: str) -> tuple[str, str]:
    """The deepest folder above `path` that exists, and the name below it on the way to `path`."""
    anchor, name = os.path.split(path)
    while not os.path.lexists(anchor):
        anchor, name = os.path.split(anchor)
    if not os.path.isdir(anchor):
        raise PodError(f"path {path!r} lies below {anchor!r}, which is not a directory")
    if anchor != "/" and os.access(anchor, os.R_OK) and len(os.listdir(anchor)) > MOST_ENTRIES:
        raise PodError(f"path {path!r}: {anchor!r} has too many entries; use a folder of its own")
    return anchor, name
