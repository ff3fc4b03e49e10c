"""Whether git tracks a file of a folder: then a pull or a checkout has put it there, or will."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

_TIMEOUT_SECONDS = 20.0
_MAX_BYTES = 4096
_OF_OTHER_REPOSITORIES = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_NAMESPACE")


def tracked(folder: Path) -> str:
    """A file in the folder that a repository around it tracks, relative to that; empty if there is none, or no git command."""
    folder = folder.resolve()
    for root in folder.parents:
        # A link to nothing is no repository, but costs little to ask.
        if os.path.lexists(root / ".git") and (found := _listed(root, folder.relative_to(root))):
            return found
    return ""


def _listed(root: Path, folder: Path) -> str:
    """The first tracked path below a folder of a repository, also one that differs in case, as some file systems have it."""
    environment = {name: value for name, value in os.environ.items() if name not in _OF_OTHER_REPOSITORIES}
    # Only the index is read: no program that the repository configures runs.
    command = ["git", "-c", "core.fsmonitor=false", "ls-files", "-z", "--", f":(icase,literal,top){folder}"]
    try:
        with subprocess.Popen(  # noqa: S603 - git, with arguments of ours
            command,
            cwd=root,
            env=environment | {"GIT_OPTIONAL_LOCKS": "0"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        ) as process:
            assert process.stdout is not None
            listing = process.stdout.read(_MAX_BYTES)
            process.stdout.close()
            process.wait(_TIMEOUT_SECONDS)
    except FileNotFoundError:
        return ""
    return os.fsdecode(listing.partition(b"\0")[0])
