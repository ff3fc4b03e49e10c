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
    "uv": "uv.lock", "pylock": "pylock.toml", "poetry": "poetry.lock", "requirements": "requirements.txt"
}  # fmt: skip
_IMPLEMENTATIONS = {"cpython": "CPython", "pypy": "PyPy"}


def claim(
    directory: Path, code_archive: bytes = b"", limits: SnapshotLimits | None = None
) -> tuple[Claim, list[str]]:
    """The claim of a run that is started in `directory`, and a warning for each part that was left out of it."""
    from periplus.snapshotter.v1.snapshotter_pb2 import Claim

    limits = limits or SnapshotLimits()
    found = collect(directory, limits)
    warnings = [f"{name} is not in the snapshot: {why}" for name, why in found.omitted.items()]
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
    if found.lockfile and len(found.lockfile.content) > limits.sent_lockfile_bytes:
        warnings.append(
            f"{found.lockfile.path} is not in the snapshot: it has more than {limits.sent_lockfile_bytes} bytes"
        )
    elif found.lockfile and found.lockfile.content:
        message.lockfile.name = _NAMES[found.lockfile.format]
        message.lockfile.content = found.lockfile.content
    return message, warnings


def _add_git(message: Claim, found: Snapshot) -> None:
    message.git.commit = found.commit
    message.git.branch = found.branch
    message.git.remote = found.remote
    message.git.patch = found.patch
    for path, content in found.untracked.items():
        message.git.untracked.add(path=os.fsencode(path), content=content)
