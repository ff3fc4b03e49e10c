"""Where a project's modules lie: below its import root, or installed in a way that leaves them to be edited."""

from __future__ import annotations

import importlib.util
import sys
import sysconfig
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

from periplus.sdk.closure.modules import Module, read_module

# In the order in which Python looks.
_SUFFIXES = (*EXTENSION_SUFFIXES, ".py")

# A step's own machinery is no part of what it computes, even where it is installed to be edited.
_OURS = frozenset({"periplus"})


class Project:
    """The Python files under one import root, and packages that are imported from where somebody edits them.

    What is found in the standard library or in site-packages belongs to the environment.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._read: dict[str, Module] = {}
        self._files: dict[str, Path | None] = {}
        self._elsewhere: dict[str, Path | None] = {}

    def file(self, name: str) -> Path | None:
        """The file of a module by its full name, or None when the project has none."""
        if name not in self._files:
            self._files[name] = self._find(name)
        return self._files[name]

    def is_folder(self, name: str) -> bool:
        """Whether a name is a folder without `__init__.py`, which Python takes for a namespace package."""
        parts = name.split(".")
        if not all(part.isidentifier() for part in parts):
            return False
        return any(root.joinpath(*parts).is_dir() for root in self._roots(parts[0]))

    def module(self, name: str) -> Module:
        """A module that `file` finds. Raises PipelineError when it cannot be parsed."""
        if name not in self._read:
            path = self.file(name)
            assert path is not None, name
            self._read[name] = read_module(name, path, self._relative(name, path))
        return self._read[name]

    def every_module(self) -> list[str]:
        """The names of all modules under the root, folders with a dot in front and environments left out."""
        names = []
        folders = [self.root]
        while folders:
            folder = folders.pop()
            for path in sorted(folder.iterdir()):
                if path.is_dir() and path.name.isidentifier() and not (path / "pyvenv.cfg").exists():
                    folders.append(path)
                elif path.suffix == ".py" and path.stem.isidentifier():
                    inside = path.relative_to(self.root).with_suffix("").parts
                    names.append(".".join(inside[:-1] if inside[-1] == "__init__" else inside))
        return sorted(filter(None, names))

    def _find(self, name: str) -> Path | None:
        parts = name.split(".")
        if not all(parts):
            return None
        for root in self._roots(parts[0]):
            base = root.joinpath(*parts)
            candidates = [base / "__init__.py", *(base.with_name(base.name + end) for end in _SUFFIXES)]
            for path in candidates:
                if path.is_file():
                    return path
        return None

    def _relative(self, name: str, path: Path) -> str:
        """A module's file by its path from the root that it was found under."""
        depth = name.count(".") + (2 if path.name == "__init__.py" else 1)
        return "/".join(path.parts[-depth:])

    def _roots(self, top: str) -> list[Path]:
        """The folders in which a top-level module or package may lie."""
        if top not in self._elsewhere:
            here = (self.root / top / "__init__.py", *(self.root / (top + end) for end in _SUFFIXES))
            found = any(path.is_file() for path in here)
            self._elsewhere[top] = None if found else _edited(top)
        other = self._elsewhere[top]
        return [self.root] if other is None else [self.root, other]


def _edited(top: str) -> Path | None:
    """The folder from which a top-level name is imported, if it is one that somebody edits."""
    if top in _OURS or top in sys.stdlib_module_names or not top.isidentifier():
        return None
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    places = list(
        spec.submodule_search_locations or ([spec.origin] if spec.has_location and spec.origin else [])
    )
    for place in map(Path, places):
        if place.stem == top and not _is_installed(place):
            return place.parent
    return None


def _is_installed(place: Path) -> bool:
    """Whether a file lies where installers put packages, or in the standard library."""
    if {"site-packages", "dist-packages"}.intersection(place.parts):
        return True
    libraries = {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")}
    return any(place.is_relative_to(library) for library in libraries if library)
