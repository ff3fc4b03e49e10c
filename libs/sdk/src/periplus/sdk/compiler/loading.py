"""Finding the pipeline in a user's file, and the import root of the project that the file belongs to."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from periplus.sdk.errors import PipelineError
from periplus.sdk.pipelines.pipeline import Pipeline

if TYPE_CHECKING:
    from types import ModuleType

_imported: set[str] = set()
"""The modules that the last `load` imported from its project: a later `load` imports them anew."""


@dataclass(frozen=True)
class ModulePath:
    """A module's name, and the directory that it is imported from."""

    root: Path
    module: str


def module_path(file: Path) -> ModulePath:
    """Where a file is imported from: its own directory, or, inside packages, the directory that holds them."""
    file = file.resolve()
    root, parts = file.parent, [file.stem]
    while (root / "__init__.py").is_file() and root != root.parent:
        parts.insert(0, root.name)
        root = root.parent
    return ModulePath(root, ".".join(parts))


def load(path: str | Path) -> Pipeline[..., Any]:
    """Import a Python file and return its one @pipeline; `file.py:name` says which one, if there are more.

    Raises PipelineError when there is no such file, none or several pipelines in it, or its name hides a module
    that is in use. What the file itself raises passes through.
    """
    text, _, name = str(path).rpartition(":") if ".py:" in str(path) else (str(path), "", "")
    file = Path(text)
    if not file.is_file() or file.suffix != ".py":
        raise PipelineError(f"{text} is no Python file", fix="give the path of a .py file with a @pipeline")
    module = _import(file)
    found = {
        one.function.__name__: one
        for one in vars(module).values()
        if isinstance(one, Pipeline) and one.function.__module__ == module.__name__
    }
    if name:
        if name not in found:
            raise PipelineError(
                f"{text} has no pipeline {name}", fix="its pipelines are: " + (", ".join(found) or "none")
            )
        return found[name]
    if len(found) != 1:
        what = "no @pipeline" if not found else "several pipelines: " + ", ".join(found)
        fix = "decorate a function with @pipeline" if not found else f"name one: {text}:{next(iter(found))}"
        raise PipelineError(f"{text} has {what}", fix=fix)
    return next(iter(found.values()))


def _import(file: Path) -> ModuleType:
    path = module_path(file)
    for name in _imported:
        sys.modules.pop(name, None)
    _imported.clear()
    top = path.module.split(".")[0]
    loaded_from = getattr(sys.modules.get(path.module), "__file__", None)
    taken = top in sys.modules and loaded_from != str(file.resolve())
    if "." in file.stem or taken or top in sys.stdlib_module_names:
        raise PipelineError(f"the name {file.name} hides the module {top}", fix="give the file another name")
    if str(path.root) in sys.path:
        sys.path.remove(str(path.root))
    sys.path.insert(0, str(path.root))
    importlib.invalidate_caches()
    before = set(sys.modules)
    try:
        return importlib.import_module(path.module)
    finally:
        for name in set(sys.modules) - before:
            stem = path.root.joinpath(*name.split("."))
            source = getattr(sys.modules[name], "__file__", None)
            if source in (f"{stem}.py", str(stem / "__init__.py")):
                _imported.add(name)
