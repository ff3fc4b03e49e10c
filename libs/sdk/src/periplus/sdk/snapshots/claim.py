"""The claim that is sent with a run: what `collect` found, as the snapshotter's message."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from periplus.sdk.snapshots.collection import SnapshotLimits, collect, editable_packages

if TYPE_CHECKING:
    from pathlib import Path

    from periplus.sdk.snapshots.collection import Snapshot
    from periplus.snapshotter.v1.snapshotter_pb2 import Claim

_NAMES = {
    "uv": "uv.lock", "pylock": "pylock.toml", "poetry": "poetry.lock", "pdm": "pdm.lock", "pipfile": "Pipfile.lock",
    "requirements": "requirements.txt",
}  # fmt: skip
MAX_OMITTED = 200
"""Paths that a claim names as omitted."""
_MAX_NAMED = 3
"""Paths that a warning names."""
_MAX_REASON_CHARACTERS = 500
_MAX_PATH_BYTES = 4_096
_IMPLEMENTATIONS = {"cpython": "CPython", "pypy": "PyPy"}


def claim(
    directory: Path, code_archive: bytes = b"", limits: SnapshotLimits | None = None
) -> tuple[Claim, list[str]]:
    """The claim of a run that is started in `directory`, and a warning for each part that was left out of it."""
    from periplus.snapshotter.v1.snapshotter_pb2 import Claim

    limits = limits or SnapshotLimits()
    found = collect(directory, limits)
    omitted = dict(found.omitted)
    message = Claim(code_archive=code_archive)
    message.platform.python_version = found.python_version
    message.platform.python_implementation = _IMPLEMENTATIONS.get(
        found.python_implementation, found.python_implementation
    )
    system = os.uname()
    message.platform.system = system.sysname
    message.platform.machine = system.machine
    editable = editable_packages()
    for name, version in found.packages.items():
        message.installed.add(name=name, version=version, editable=name in editable)
    if found.commit:
        _add_git(message, found)
    elif found.patch or found.untracked:
        omitted["changes"] = "the repository has no commit that they could be compared with"
    if found.lockfile and len(found.lockfile.content) > limits.sent_lockfile_bytes:
        omitted[found.lockfile.path] = f"it has more than {limits.sent_lockfile_bytes} bytes"
    elif found.lockfile and found.lockfile.content:
        message.lockfile.name = _NAMES[found.lockfile.format]
        message.lockfile.content = found.lockfile.content
    omitted = {name: _printable(why) for name, why in omitted.items()}
    _add_omitted(message, omitted)
    return message, _warnings(omitted)


def _add_omitted(message: Claim, omitted: dict[str, str]) -> None:
    for number, (name, why) in enumerate(omitted.items()):
        if number == MAX_OMITTED:
            message.omitted.add(path=f"{len(omitted) - number} more".encode(), reason="more than are named")
            break
        message.omitted.add(path=os.fsencode(name)[:_MAX_PATH_BYTES], reason=why)


def _warnings(omitted: dict[str, str]) -> list[str]:
    """A warning for each reason."""
    names: dict[str, list[str]] = {}
    for name, why in omitted.items():
        names.setdefault(why, []).append(name)
    warnings = []
    for why, of in names.items():
        more = len(of) - _MAX_NAMED
        listed = ", ".join(of[:_MAX_NAMED]) + (f" and {more} more" if more > 0 else "")
        warnings.append(f"{listed} {'is' if len(of) == 1 else 'are'} not in the snapshot: {why}")
    return warnings


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)[:_MAX_REASON_CHARACTERS]


def _add_git(message: Claim, found: Snapshot) -> None:
    message.git.commit = found.commit
    message.git.branch = found.branch
    message.git.remote = found.remote
    message.git.patch = found.patch
    for path, content in found.untracked.items():
        message.git.untracked.add(
            path=os.fsencode(path), content=content, executable=path in found.executable
        )
