"""Calls of git that read a repository without running any program that it configures, and without changing it."""

from __future__ import annotations

import os
import subprocess
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import IO

MAX_LISTING_BYTES = 4 << 20
GIT_TIMEOUT_SECONDS = 20.0
TOO_MUCH = "git printed more than"
"""How the error of a command begins that printed more than it may."""

# With the options of `read_configuration` and the variables of `_environment`, no program runs but git; `git diff` needs more.
_GIT = (
    "git", "--no-pager", "--no-optional-locks", "-c", "core.fsmonitor=false", "-c", f"core.hooksPath={os.devnull}",
    "-c", "core.quotepath=off",
)  # fmt: skip
_MAX_FILTERS = 100


@dataclass(frozen=True)
class Configuration:
    """What a repository's configuration says: the remote's address, and the names of filters.

    A filter (`filter.<name>.clean`, `process`) is a program that git runs when it compares a file.
    """

    url: str = ""
    filters: frozenset[str] = frozenset()

    @property
    def without_filters(self) -> list[str]:
        """Options that switch every configured filter off."""
        settings = ("clean=", "smudge=", "process=", "required=false")
        return [
            part
            for name in sorted(self.filters)
            for setting in settings
            for part in ("-c", f"filter.{name}.{setting}")
        ]


def read_configuration(root: Path) -> tuple[Configuration, str]:
    """The configuration, and an error or ""."""
    wanted = r"^(remote\.origin\.url|filter\..*)$"
    listing, problem = git(root, "config", "-z", "--get-regexp", wanted)
    if problem and problem != NOTHING_FOUND:
        return Configuration(), problem
    url, names = "", set()
    for entry in os.fsdecode(listing).split("\0"):
        key, _, value = entry.partition("\n")
        if key == "remote.origin.url":
            url = value.strip()
        elif key:
            names.add(key.removeprefix("filter.").rpartition(".")[0])
    if len(names) > _MAX_FILTERS or any("=" in name for name in names):
        return Configuration(), "its configuration names filters that git can not be kept from running"
    return Configuration(url, frozenset(names)), ""


def git(
    root: Path, *arguments: str, given: bytes = b"", max_bytes: int = MAX_LISTING_BYTES
) -> tuple[bytes, str]:
    """The output of a git command in the working tree that reads `given`, and an error or "". One that prints or takes too much
    is killed.
    """
    # A file and not a pipe: git may print a warning for each of many files, and nothing reads them meanwhile.
    with (
        tempfile.TemporaryFile() as errors,
        _opened(given) as standard_input,
        subprocess.Popen(  # noqa: S603 - git, with arguments of ours
            [*_GIT, *arguments],
            cwd=root,
            env=_environment(root),
            stdin=standard_input,
            stdout=subprocess.PIPE,
            stderr=errors,
        ) as process,
    ):
        assert process.stdout is not None
        deadline = threading.Timer(GIT_TIMEOUT_SECONDS, process.kill)
        deadline.start()
        try:
            printed = process.stdout.read(max_bytes + 1)
            if len(printed) > max_bytes:
                process.kill()
            process.wait()
        finally:
            deadline.cancel()
        if len(printed) > max_bytes:
            return b"", f"{TOO_MUCH} {max_bytes} bytes"
        if process.returncode:
            errors.seek(0)
            error = errors.read(400).decode(errors="replace").strip().partition("\n")[0]
            return b"", f"git: {error or f'exit code {process.returncode}'}"
    return printed, ""


def _opened(given: bytes) -> IO[bytes]:
    if not given:
        return Path(os.devnull).open("rb")
    file = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    file.write(given)
    file.seek(0)
    return file


def _environment(root: Path) -> dict[str, str]:
    """The user's, without the variables that name another repository."""
    kept = {name: value for name, value in os.environ.items() if name not in _OF_OTHER_REPOSITORIES}
    return kept | {
        "LC_ALL": "C",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_WORK_TREE": str(root),  # wins over core.worktree
        "GIT_CEILING_DIRECTORIES": str(root.parent),
        # A partial clone would fetch what it lacks, by programs that its configuration names.
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_ALLOW_PROTOCOL": "none",
    }


_OF_OTHER_REPOSITORIES = {
    "GIT_DIR", "GIT_COMMON_DIR", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_NAMESPACE", "GIT_EXTERNAL_DIFF",
}  # fmt: skip


NOTHING_FOUND = "git: exit code 1"
"""The error of a command that found nothing: `git config`, `git check-ignore`."""
