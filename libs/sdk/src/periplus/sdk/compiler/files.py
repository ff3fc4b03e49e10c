"""The files that a step declares: they travel beside its code, and are part of its key."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from periplus.sdk.compiler.closure import Closure
from periplus.sdk.discovery.names import WHOLE
from periplus.sdk.errors import PipelineError

MAX_FILES = 1_000
"""Files of one step, those in its folders among them."""


def with_files(found: Closure, declared: Sequence[str], folder: Path, root: Path, function: str) -> Closure:
    """A closure with files and folders in it, which are relative to the folder of the step's module.

    Raises PipelineError for one that is not there, that is not below the import root, or for too many.
    """
    files: dict[str, Path] = {}
    for name in declared:
        for path in _files(folder / name, name, function):
            if not path.resolve().is_relative_to(root):
                raise PipelineError(
                    f"{name} is not in {root}, the folder of the project's code",
                    function=function,
                    argument="files",
                    fix="copy it there, or pass it to the step as an input",
                )
            files[path.resolve().relative_to(root).as_posix()] = path
            if len(files) > MAX_FILES:
                raise PipelineError(
                    f"{name} has more than {MAX_FILES} files",
                    function=function,
                    argument="files",
                    fix="pass a folder to the step as an input",
                )
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


def _files(path: Path, name: str, function: str) -> list[Path]:
    if path.is_dir():
        return sorted(one for one in path.rglob("*") if one.is_file() and "__pycache__" not in one.parts)
    if not path.is_file():
        raise PipelineError(
            f"there is no {name} in {path.parent}",
            function=function,
            argument="files",
            fix="name files and folders from the folder of the step's module",
        )
    return [path]
