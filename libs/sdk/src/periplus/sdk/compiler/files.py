"""The files that a step declares, or its project for all steps: they travel beside its code, and are part of its key."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from periplus.sdk.compiler.closure import Closure
from periplus.sdk.discovery.names import WHOLE
from periplus.sdk.errors import PipelineError

MAX_FILES = 1_000
"""Files of one step, those in its folders among them."""


MAX_PYPROJECT_BYTES = 1 << 20


@dataclass(frozen=True)
class Declared:
    """Names of files and folders, relative to a folder. `function` is the step that declares them; empty: the project."""

    names: Sequence[str] = ()
    folder: Path = Path()
    function: str = ""

    def error(self, what: str, fix: str) -> PipelineError:
        argument = "files" if self.function else "files of [tool.periplus] in pyproject.toml"
        return PipelineError(what, function=self.function, argument=argument, fix=fix)


def files_of_project(root: Path) -> Declared:
    """What `[tool.periplus] files` of pyproject.toml declares, which is in the import root or above it in the same repository.

    Raises PipelineError if it can not be read.
    """
    folder = root
    while not (folder / "pyproject.toml").is_file():
        if (folder / ".git").exists() or folder == folder.parent:
            return Declared()
        folder = folder.parent
    if folder != root and not any((above / ".git").exists() for above in (folder, *folder.parents)):
        return Declared()  # nobody says that it belongs to this code
    file = folder / "pyproject.toml"
    try:
        with file.open("rb") as opened:
            text = opened.read(MAX_PYPROJECT_BYTES + 1).decode()
        names = tomllib.loads(text).get("tool", {}).get("periplus", {}).get("files", [])
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise PipelineError(f"{file} cannot be read: {error}") from error
    if (
        len(text) > MAX_PYPROJECT_BYTES
        or not isinstance(names, list)
        or not all(isinstance(n, str) for n in names)
    ):
        raise PipelineError(
            f"files of [tool.periplus] in {file} is not a list of names", fix='write files = ["config.yaml"]'
        )
    return Declared(tuple(names), folder)


def with_files(found: Closure, declared: Sequence[Declared], root: Path) -> Closure:
    """A closure with the declared files and folders in it.

    Raises PipelineError for one that is not there, that is not below the import root, or for too many.
    """
    files: dict[str, Path] = {}
    for each in declared:
        for name in each.names:
            for path in _files(each.folder / name, name, each):
                if not path.resolve().is_relative_to(root):
                    raise each.error(
                        f"{name} is not in {root}, the folder of the project's code",
                        "copy it there, or pass it to the step as an input",
                    )
                files[path.resolve().relative_to(root).as_posix()] = path
                if len(files) > MAX_FILES:
                    raise each.error(
                        f"{name} has more than {MAX_FILES} files", "pass a folder to the step as an input"
                    )
    if not files:
        return found
    digests = {
        name: "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()
    }
    if len(files) > MAX_NAMED:
        lines = "\n".join(f"{name} {digest}" for name, digest in sorted(digests.items()))
        digests = {"<files>": "sha256:" + hashlib.sha256(lines.encode()).hexdigest()}
    return replace(
        found,
        digests=found.digests | digests,
        files=found.files | files,
        statements=found.statements | dict.fromkeys(files, WHOLE),
    )


MAX_NAMED = 64
"""Files with a digest of their own in the template; more have one together."""


def _files(path: Path, name: str, declared: Declared) -> list[Path]:
    if path.is_dir():
        return sorted(one for one in path.rglob("*") if one.is_file() and "__pycache__" not in one.parts)
    if not path.is_file():
        of = "the step's module" if declared.function else "pyproject.toml"
        raise declared.error(
            f"there is no {name} in {declared.folder}", f"name files and folders from the folder of {of}"
        )
    return [path]
