"""The state of a git working tree, read without running anything of the repository and without changing it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from periplus.sdk.snapshots.git import git, read_configuration

_MAX_PATH_BYTES = 8 << 10

# Without a look into the working trees of submodules, whose own configuration would count there.
_SUBMODULES = "--ignore-submodules=dirty"


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
        if elsewhere := _elsewhere(root):
            return Repository(root=root, omitted={".git": elsewhere})
        url, filters, problem = read_configuration(root)
        if not problem:
            listing, problem = git(
                root,
                *filters,
                "status",
                "--porcelain=v2",
                "-z",
                "--branch",
                "--untracked-files=all",
                _SUBMODULES,
            )
    except FileNotFoundError:
        return Repository(root=root, omitted={".git": "the git command is not installed"})
    if problem:
        return Repository(root=root, omitted={".git": problem})
    commit, branch, untracked, changed, submodules = _status(listing)
    omitted = {path: why for path in submodules if (why := _elsewhere(root / path))}
    patch = b""
    if changed:
        compared = commit or _empty_tree(root)
        excluded = [f":(exclude,literal,top){path}" for path in omitted]
        patch, problem = git(
            root, *filters, *_DIFF, compared, "--", ".", *excluded, max_bytes=max_patch_bytes
        )
        if problem:
            patch, omitted["changes"] = b"", problem
    return Repository(
        root=root,
        commit=commit,
        branch=branch,
        remote=without_credentials(url),
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
    "--submodule=short",
    _SUBMODULES,
)


def _elsewhere(root: Path) -> str:
    """Why the repository of a working tree is not read; empty if it is in the tree, or names the tree as its own.

    `.git` may be a link or a file with a path: that of a linked worktree or of a submodule leads to a repository that
    names the tree; any other lets a project show a repository that is not its own.
    """
    dot_git = root / ".git"
    try:
        if dot_git.is_file():
            with dot_git.open("rb") as file:
                folder = os.fsdecode(file.read(_MAX_PATH_BYTES)).removeprefix("gitdir:").strip()
        else:
            folder = os.fspath(dot_git)
        target = (root / folder).resolve()
        if target.is_relative_to(root):
            return ""
        if _names_the_tree(target, root):
            return ""
    except (OSError, ValueError, RuntimeError) as error:
        return f"cannot be read: {error}"
    return f"it leads to {target}, which is not the repository of this folder"


def _names_the_tree(repository: Path, root: Path) -> bool:
    """Whether a linked worktree's folder has the way back to the tree, or the configuration of a submodule has."""
    back = repository / "gitdir"
    if back.is_file():
        with back.open("rb") as file:
            return (repository / os.fsdecode(file.read(_MAX_PATH_BYTES)).strip()).resolve() == (
                root / ".git"
            ).resolve()
    # Not within the tree: its configuration would be read as well.
    named, problem = git(
        repository.parent, "config", "--file", str(repository / "config"), "--get", "core.worktree"
    )
    return not problem and (repository / os.fsdecode(named).rstrip("\n")).resolve() == root


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


def _status(listing: bytes) -> tuple[str, str, tuple[str, ...], bool, list[str]]:
    """Commit, branch, untracked paths, whether a tracked file is changed, and the changed submodules, from
    `git status --porcelain=v2 -z`.
    """
    commit = branch = ""
    untracked: list[str] = []
    changed = False
    submodules: list[str] = []
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
            if rest.split(b" ", 2)[1].startswith(b"S"):
                submodules.append(os.fsdecode(rest.split(b" ", _FIELDS[kind])[-1]))
            if kind == b"2":
                next(entries, None)  # a renamed file's former path
    return commit, branch, tuple(sorted(untracked)), changed, submodules


_FIELDS = {b"1": 7, b"2": 8, b"u": 9}
"""The fields of a changed entry before its path, by the entry's kind."""


def _empty_tree(root: Path) -> str:
    """The id of a tree with nothing in it, to compare with before the first commit."""
    written, problem = git(root, "hash-object", "--no-filters", "-t", "tree", os.devnull)
    return "HEAD" if problem else written.decode().strip()
