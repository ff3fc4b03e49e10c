"""The file system of one step: which path of the host stands behind each path that the step sees."""

# Paths are strings here: a step's own names, which the host need not have.
# ruff: noqa: PTH110, PTH112, PTH118, PTH119, PTH120, PTH208

import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from periplus_local.argo.executor.job import PodError

SCRIPT = "/argo/staging/script"
WORKDIR = "/argo/work"
# The step's own; it never sees the host's.
TMP = "/tmp"  # noqa: S108 - the private one
PRIVATE = (TMP, "/argo")
# An overlay costs one mount per entry of the folder.
MAX_OVERLAY_ENTRIES = 4096


@dataclass(frozen=True)
class Overlay:
    """A folder of the host that a step sees with the entries `hidden` replaced by private ones in `storage`."""

    folder: str
    storage: str
    hidden: list[str]


@dataclass(frozen=True)
class StepFilesystem:
    """The mapping from the paths of one step to paths of the host.

    `areas` maps a path of the step to the host path of its files; the longest match holds, and a `shared` path
    maps to itself. `hidden` are top-level names that are not taken from the host.
    """

    root: str
    areas: dict[str, str]
    shared: list[str]
    hidden: list[str]
    overlays: list[Overlay]
    namespaces: bool

    def host_path(self, path: str) -> str:
        """Where the file that the step calls `path` lies on the host."""
        area = self._area(path)
        if area is not None:
            return self.areas[area] + path[len(area) :]
        if not self.namespaces:
            return path
        if not os.path.lexists("/" + path.split("/", 2)[1]):
            return self.root + path
        for overlay in reversed(self.overlays):
            if is_under(path, overlay.folder):
                name = path[len(overlay.folder) + 1 :].split("/", 1)[0]
                if not os.path.lexists(f"{overlay.folder}/{name}"):
                    return overlay.storage + path[len(overlay.folder) :]
        return path

    def step_path(self, path: str) -> str:
        """The path under which the step's process finds `path`: the host's where there are no namespaces."""
        return path if self.namespaces else self.host_path(path)

    def is_private(self, path: str) -> bool:
        """Whether no other step and no process of the host sees what the step writes to `path`."""
        area = self._area(path)
        return area is not None and area not in self.shared

    def _area(self, path: str) -> str | None:
        matches = [area for area in self.areas if is_under(path, area)]
        return max(matches, key=len, default=None)

    def mount_spec(self) -> dict[str, Any]:
        """The mounts that make this file system, as JSON values for mount_namespace.enter."""
        return {
            "root": self.root,
            "work": WORKDIR,
            "hidden": self.hidden,
            "shared": [path for path in self.shared if self.is_private(os.path.dirname(path))],
            "overlays": [[o.folder, o.storage, o.hidden] for o in self.overlays],
            "volumes": [],
            "masks": [],
        }

    def to_json(self) -> dict[str, Any]:
        """All fields as JSON values, for `from_json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "StepFilesystem":
        """The file system that `to_json` gave the fields of."""
        return cls(**{**fields, "overlays": [Overlay(**overlay) for overlay in fields["overlays"]]})


def plan_filesystem(
    folder: Path,
    declared: Iterable[str],
    shared: Iterable[str],
    *,
    namespaces: bool,
    max_overlay_entries: int = MAX_OVERLAY_ENTRIES,
) -> StepFilesystem:
    """The file system of a step that keeps its files in `folder` and declares the paths `declared`.

    `/tmp` and `/argo` are always private, except for the folders in `shared`. Raises PodError for a declared
    path that cannot be made private.
    """
    root = f"{folder}/root"
    shared = sorted({os.path.normpath(path) for path in shared} - {"/", *PRIVATE}, key=len)
    # An image's working folder is its "/" unless it sets another: what a step writes to a relative path there,
    # it finds at the absolute path.
    areas = {**{path: root + path for path in PRIVATE}, WORKDIR: root}
    if not namespaces:
        areas[root] = root  # the target of the step's own links, even when it lies below /tmp
    filesystem = StepFilesystem(root, areas, shared, [], [], namespaces)
    areas.update({path: path for path in shared})
    hidden: dict[str, set[str]] = {}
    for given in sorted(set(declared), key=lambda path: path.count("/")):
        path = canonical(given, filesystem)
        if filesystem.is_private(path):
            continue
        anchor, name = _anchor(path, max_overlay_entries)
        hidden.setdefault(anchor, set()).add(name)
        at = os.path.join(anchor, name)
        if anchor == "/" or not namespaces:
            areas[at] = root + at
        else:
            areas[at] = f"{folder}/overlay/{list(hidden).index(anchor)}/{name}"
    overlays = [
        Overlay(anchor, f"{folder}/overlay/{number}", sorted(names))
        for number, (anchor, names) in enumerate(hidden.items())
        if anchor != "/" and namespaces
    ]
    overlays.sort(key=lambda overlay: len(overlay.folder))
    return StepFilesystem(root, areas, shared, sorted(hidden.get("/", ())), overlays, namespaces)


def canonical(path: str, filesystem: StepFilesystem) -> str:
    """`path` without dots, and without symbolic links in the part that exists on the host.

    Raises PodError for a path that is relative or cannot be private.
    """
    if not path.startswith("/"):
        raise PodError(f"path {path!r} must be absolute")
    path = "/" + os.path.normpath(path).lstrip("/")
    if path == "/" or is_under(path, "/proc") or is_under(path, "/sys"):
        raise PodError(f"path {path!r} cannot be private to a step")
    if filesystem.is_private(path):
        return path
    return os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))


def exists_on_host(path: str) -> bool:
    """Whether the host has `path`, as far as this user can see."""
    return os.path.exists(path)


def is_host_folder(path: str) -> bool:
    """Whether `path` is a folder of the host, as far as this user can see."""
    return os.path.isdir(path)


def is_under(path: str, folder: str) -> bool:
    """Whether `path` is `folder` or lies below it; both normalised."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _anchor(path: str, max_entries: int) -> tuple[str, str]:
    """The deepest folder above `path` that exists on the host, and the next name on the way to `path`."""
    anchor, name = os.path.split(path)
    while not os.path.lexists(anchor):
        anchor, name = os.path.split(anchor)
    if not os.path.isdir(anchor):
        raise PodError(f"path {path!r} lies below {anchor!r}, which is not a directory")
    if anchor != "/" and os.access(anchor, os.R_OK) and len(os.listdir(anchor)) > max_entries:
        raise PodError(f"path {path!r}: {anchor!r} has too many entries; use a folder of its own")
    return anchor, name
