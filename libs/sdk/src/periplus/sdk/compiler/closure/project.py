"""The files of a project's modules: below its import root, or in a package that is installed as editable."""

from __future__ import annotations

import importlib.util
import os
import sys
import sysconfig
from importlib.machinery import EXTENSION_SUFFIXES, PathFinder
from pathlib import Path

from periplus.sdk.compiler.closure.modules import Module, read_module

# In the order of Python's import system.
_SUFFIXES = (*EXTENSION_SUFFIXES, ".py")

MAX_SEEN_FILES = 5_000
MAX_OTHER_MODULES = 500
"""Of files under the root, and of modules among them, that travel although no step's code names them."""

# The SDK is no part of what a step computes, even where it is installed as editable.
_NEVER_OF_A_PROJECT = frozenset({"periplus"})


class Project:
    """The Python files under one import root, and the packages that are installed as editable.

    The standard library and other installed packages belong to the environment.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._read: dict[str, Module] = {}
        self._files: dict[str, Path | None] = {}
        self._editable_roots: dict[str, Path | None] = {}

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

    def read_modules(self) -> list[Module]:
        """The modules that were read so far."""
        return list(self._read.values())

    def modules_that_names_can_mean(self) -> list[str]:
        """The modules under the root that a library could import by a name that it is given, such as a plugin: all, but for a name
        that another package or the standard library has. None at all if there are too many.
        """
        found: list[str] = []
        folders, seen = [self.root], 0
        while folders:
            folder = folders.pop()
            try:
                entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
            except OSError:
                continue
            seen += len(entries)
            if seen > MAX_SEEN_FILES:
                return []
            for entry in entries:
                name = entry.name.removesuffix(".py")
                if not name.isidentifier() or (folder == self.root and _is_taken(name, self.root)):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    if not os.path.exists(os.path.join(entry.path, "pyvenv.cfg")):  # noqa: PTH110, PTH118
                        folders.append(Path(entry.path))
                elif name != entry.name and entry.is_file():
                    inside = (*Path(entry.path).relative_to(self.root).parts[:-1], name)
                    found.append(".".join(inside[:-1] if name == "__init__" else inside))
        found = sorted(filter(None, found))
        return found if len(found) <= MAX_OTHER_MODULES else []

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
        """The folders in which a top-level module or package is looked for."""
        if top not in self._editable_roots:
            here = (self.root / top / "__init__.py", *(self.root / (top + end) for end in _SUFFIXES))
            found = any(path.is_file() for path in here)
            self._editable_roots[top] = None if found else _editable_root(top)
        other = self._editable_roots[top]
        return [self.root] if other is None else [self.root, other]


def _is_taken(top: str, root: Path) -> bool:
    """Whether a top-level name means something else where the root is not on the import path."""
    if (
        top in _NEVER_OF_A_PROJECT
        or top in sys.stdlib_module_names
        or top in ("sitecustomize", "usercustomize")
    ):
        return True
    elsewhere = [path for path in sys.path if Path(path or ".").resolve() != root]
    spec = PathFinder.find_spec(top, elsewhere)
    # A folder without __init__.py is a namespace that both can have a part of.
    return spec is not None and spec.origin is not None and _is_installed(Path(spec.origin))


def _editable_root(top: str) -> Path | None:
    """The folder from which a top-level name is imported, if it is installed as editable."""
    if top in _NEVER_OF_A_PROJECT or top in sys.stdlib_module_names or not top.isidentifier():
        return None
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    locations = list(
        spec.submodule_search_locations or ([spec.origin] if spec.has_location and spec.origin else [])
    )
    for location in map(Path, locations):
        if location.stem == top and not _is_installed(location):
            return location.parent
    return None


def _is_installed(path: Path) -> bool:
    """Whether a path is in site-packages or in the standard library."""
    if {"site-packages", "dist-packages"}.intersection(path.parts):
        return True
    libraries = {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")}
    return any(path.is_relative_to(library) for library in libraries if library)
