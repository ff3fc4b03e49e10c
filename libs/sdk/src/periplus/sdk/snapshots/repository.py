"""The state of a git working tree, read without running anything of the repository and without changing it."""

from __future__ import annotations

import os
import subprocess
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit, urlunsplit

MAX_LISTING_BYTES = 4 << 20
GIT_TIMEOUT_SECONDS = 20.0

# A repository's configuration may name programs to run; these options keep git from running them.
_GIT = ("git", "-c", "core.fsmonitor=false", "-c", "core.quotepath=off", "--no-optional-locks")


@dataclass(frozen=True)
class Repository:
    """The state of a working tree. Everything is empty if the directory is in no repository or git is not installed."""

    root: Path = Path()
    commit: str = ""
    branch: str = ""
    remote: str = ""
    patch: bytes = b""
    untracked: tuple[str, ...] = ()
    omitted: dict[str, str] = field(default_factory=dict)


def read_repository(directory: Path, max_patch_bytes: int) -> Repository:
    """Read the working tree that holds a directory. What cannot be read, or is too large, is named in `omitted`."""
    root = _root(directory)
    if root is None:
        return Repository(root=directory)
    try:
        remote = _start(root, "config", "--get", "remote.origin.url")
        status = _start(root, "status", "--porcelain=v2", "-z", "--branch", "--untracked-files=all")
    except FileNotFoundError:
        return Repository(root=root, omitted={".git": "the git command is not installed"})
    listing, problem = _finish(status, MAX_LISTING_BYTES)
    url, _ = _finish(remote, MAX_LISTING_BYTES)
    if problem:
        return Repository(root=root, omitted={".git": problem})
    commit, branch, untracked, changed = _status(listing)
    omitted: dict[str, str] = {}
    patch = b""
    if changed:
        patch, problem = _finish(_start(root, *_DIFF, commit or _empty_tree(root)), max_patch_bytes)
        if problem:
            patch, omitted["changes"] = b"", problem
    return Repository(
        root=root,
        commit=commit,
        branch=branch,
        remote=without_credentials(os.fsdecode(url).strip()),
        patch=patch,
        untracked=untracked,
        omitted=omitted,
    )


_DIFF = (
    "diff",
    "--binary",
    "--no-ext-diff",
    "--no-textconv",
    "--no-color",
    "--src-prefix=a/",
    "--dst-prefix=b/",
)


def without_credentials(url: str) -> str:
    """A remote's address without user, password and query; `git@host:path` has none and stays."""
    if "://" not in url:
        return url
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "", ""))


def _root(directory: Path) -> Path | None:
    """The working tree's root: where `.git` is, a folder or, in worktrees and submodules, a file."""
    for folder in (directory, *directory.parents):
        if (folder / ".git").exists():
            return folder
    return None


def _status(listing: bytes) -> tuple[str, str, tuple[str, ...], bool]:
    """Commit, branch, untracked paths and whether a tracked file is changed, from `git status --porcelain=v2 -z`."""
    commit = branch = ""
    untracked: list[str] = []
    changed = False
    entries = iter(listing.split(b"\0"))
    for entry in entries:
        kind, _, rest = entry.partition(b" ")
        if kind == b"#":
            name, _, value = os.fsdecode(rest).partition(" ")
            if name == "branch.oid" and value != "(initial)":
                commit = value
            elif name == "branch.head" and value != "(detached)":
                branch = value
        elif kind == b"?":
            untracked.append(os.fsdecode(rest))
        elif kind in (b"1", b"2", b"u"):
            changed = True
            if kind == b"2":
                next(entries, None)  # a renamed file's former path
    return commit, branch, tuple(sorted(untracked)), changed


def _empty_tree(root: Path) -> str:
    """The id of a tree with nothing in it, to compare with before the first commit."""
    written, problem = _finish(_start(root, "hash-object", "-t", "tree", os.devnull), 200)
    return "HEAD" if problem else written.decode().strip()


Started = tuple[subprocess.Popen[bytes], IO[bytes]]


def _start(root: Path, *arguments: str) -> Started:
    environment = {**os.environ, "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_EXTERNAL_DIFF"):
        environment.pop(name, None)
    # A file and not a pipe: git may print a warning for each of many files, and nothing reads them meanwhile.
    errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
    process = subprocess.Popen(  # noqa: S603 - git, with arguments of ours
        [*_GIT, *arguments],
        cwd=root,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=errors,
    )
    return process, errors


def _finish(started: Started, max_bytes: int) -> tuple[bytes, str]:
    """The output of a git command, and an error or "". A command that prints or takes too much is killed."""
    process, errors = started
    deadline = threading.Timer(GIT_TIMEOUT_SECONDS, process.kill)
    deadline.start()
    with process, errors:
        assert process.stdout is not None
        printed = process.stdout.read(max_bytes + 1)
        if len(printed) > max_bytes:
            process.kill()
            process.wait()
            deadline.cancel()
            return b"", f"git printed more than {max_bytes} bytes"
        process.wait()
        deadline.cancel()
        if process.returncode:
            errors.seek(0)
            error = errors.read(400).decode(errors="replace").strip().partition("\n")[0]
            return b"", f"git: {error or f'exit code {process.returncode}'}"
    return printed, ""
