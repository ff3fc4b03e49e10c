"""The claim that goes with a run: what `snapshot` found, as the contracts say it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from periplus.sdk.snapshot import collect, editable_packages

if TYPE_CHECKING:
    from pathlib import Path

    from periplus.sdk.snapshot import Snapshot
    from periplus.snapshotter.v1.snapshotter_pb2 import Claim

LARGEST_LOCKFILE = 8 << 20  # bytes; what the snapshotter takes

_NAMES = {
    "uv": "uv.lock", "pylock": "pylock.toml", "poetry": "poetry.lock", "requirements": "requirements.txt"
}  # fmt: skip
_IMPLEMENTATIONS = {"cpython": "CPython", "pypy": "PyPy"}


def claim(directory: Path, code_archive: bytes = b"") -> tuple[Claim, list[str]]:
    """What runs from `directory` are made with, and warnings about what was left out of it."""
    from periplus.snapshotter.v1.snapshotter_pb2 import Claim

    found = collect(directory)
    warnings = [f"{name} is not in the snapshot: {why}" for name, why in found.omitted.items()]
    made = Claim(code_archive=code_archive)
    made.platform.python_version = found.python_version
    made.platform.python_implementation = _IMPLEMENTATIONS.get(
        found.python_implementation, found.python_implementation
    )
    system = os.uname()
    made.platform.system = system.sysname
    made.platform.machine = system.machine
    editable = editable_packages()
    for name, version in found.packages.items():
        made.installed.add(name=name, version=version, editable=name in editable)
    if found.commit:
        _add_git(made, found)
    if found.lockfile and len(found.lockfile.content) > LARGEST_LOCKFILE:
        warnings.append(f"{found.lockfile.path} is not in the snapshot: it is larger than 8 MiB")
    elif found.lockfile and found.lockfile.content:
        made.lockfile.name = _NAMES[found.lockfile.format]
        made.lockfile.content = found.lockfile.content
    return made, warnings


def _add_git(made: Claim, found: Snapshot) -> None:
    made.git.commit = found.commit
    made.git.branch = found.branch
    made.git.remote = found.remote
    made.git.patch = found.patch
    for path, content in found.untracked.items():
        made.git.untracked.add(path=os.fsencode(path), content=content)
