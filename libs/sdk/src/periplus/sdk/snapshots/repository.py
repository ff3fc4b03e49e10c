"""The state of a git working tree, read without running anything of the repository and without changing it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from periplus.sdk.snapshots.git import TOO_MUCH, git, read_configuration
from periplus.sdk.snapshots.working_tree import (
    LEADS_OUT,
    NOT_CHECKED_OUT,
    compare_uncompared,
    filtered,
    is_inside,
    leading_out,
    no_files,
    read_index,
)

_MAX_PATH_BYTES = 8 << 10
MAX_SUBMODULES = 50
"""Submodules that are read, those within others among them."""
MAX_SECONDS = 60
"""After this time no further submodule is read."""

# Without a look into the working trees of submodules, whose own configuration would count there.
_SUBMODULES = "--ignore-submodules=dirty"


@dataclass(frozen=True)
class Repository:
    """The state of a working tree. Everything is empty if the directory is in no repository or git is not installed.

    `untracked`: files that are to be kept with their content, those among them that git was told not to compare and that changed.
    """

    root: Path = Path()
    commit: str = ""
    branch: str = ""
    remote: str = ""
    patch: bytes = b""
    untracked: tuple[str, ...] = ()
    omitted: dict[str, str] = field(default_factory=dict)


@dataclass
class _Limits:
    """What is left for a working tree and its submodules."""

    patch_bytes: int
    file_bytes: int
    files: int
    submodules: int
    deadline: float


def read_repository(
    directory: Path, max_patch_bytes: int, max_file_bytes: int = 2 << 20, max_files: int = 2_000
) -> Repository:
    """Read the working tree that holds a directory. What cannot be read, or is too large, is named in `omitted`.

    Of what git does not compare, files up to `max_file_bytes` are compared, at most `max_files` of them.
    """
    root = _root(directory)
    if root is None:
        return Repository(root=directory)
    limits = _Limits(
        max_patch_bytes, max_file_bytes, max_files, MAX_SUBMODULES, time.monotonic() + MAX_SECONDS
    )
    return _read(root, "", limits)


def _read(root: Path, prefix: str, limits: _Limits) -> Repository:
    """`prefix` is put before the paths of the patch: that of a submodule's folder, with "/" at its end."""
    try:
        if elsewhere := _elsewhere(root):
            return Repository(root=root, omitted={".git": elsewhere})
        configuration, problem = read_configuration(root)
        filters = configuration.without_filters
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
    status = _status(listing)
    index, problem = read_index(root)
    omitted = {".git/index": problem} if problem else {}
    kept, gone = compare_uncompared(root, index.uncompared, limits.files, limits.file_bytes)
    omitted |= gone
    if configuration.filters or index.has_attributes:
        omitted |= filtered(root, configuration, status.changed, limits.file_bytes)
    omitted |= leading_out(root, index.links)
    unreadable = no_files(root, index, status.untracked) | _unreadable(root, status.changed)
    omitted |= unreadable
    strange = {path: why for path in status.submodules if (why := _elsewhere(root / path))}
    patch, problem = _patch(root, filters, status, prefix, [*unreadable, *strange], limits)
    if problem.startswith(TOO_MUCH):
        large = _large(root, status.changed, limits.file_bytes)
        if large:
            patch, problem = _patch(root, filters, status, prefix, [*unreadable, *strange, *large], limits)
            omitted |= {} if problem else large
    if problem:
        patch, omitted["changes"] = b"", problem
    limits.patch_bytes -= len(patch)
    untracked = [*status.untracked, *kept]
    for path in index.submodules:
        found = _submodule(root / path, f"{prefix}{path}/", limits)
        patch += found.patch
        untracked += [f"{path}/{each}" for each in found.untracked]
        omitted |= {f"{path}/{each}" if each != ".git" else path: why for each, why in found.omitted.items()}
    return Repository(
        root=root,
        commit=status.commit,
        branch=status.branch,
        remote=without_credentials(configuration.url),
        patch=patch,
        untracked=tuple(sorted(untracked)),
        omitted=omitted,
    )


def _submodule(folder: Path, prefix: str, limits: _Limits) -> Repository:
    """The working tree of a submodule, whose own configuration counts; `.git` of `omitted` stands for all of it."""

    def nothing(why: str) -> Repository:
        return Repository(root=folder, omitted={".git": why})

    if folder.is_symlink() or folder.resolve() != folder:
        return nothing(LEADS_OUT)
    if not (folder / ".git").exists():
        return nothing(NOT_CHECKED_OUT)
    limits.submodules -= 1
    if limits.submodules < 0 or time.monotonic() > limits.deadline:
        return nothing("there are too many submodules to read, or they take too long")
    found = _read(folder, prefix, limits)
    return found if found.commit or found.omitted else nothing("the submodule has no commit")


def _patch(
    root: Path, filters: list[str], status: _Status, prefix: str, without: list[str], limits: _Limits
) -> tuple[bytes, str]:
    """The changes of tracked files, and an error or "". It names no submodule's files."""
    if not status.is_changed:
        return b"", ""
    if len(without) > _MAX_EXCLUDED:
        return b"", f"more than {_MAX_EXCLUDED} files cannot be read"
    excluded = [f":(exclude,literal,top){path.rstrip('/')}" for path in without]
    compared = status.commit or _empty_tree(root)
    paths = (f"--src-prefix=a/{prefix}", f"--dst-prefix=b/{prefix}")
    return git(
        root, *filters, *_DIFF, *paths, compared, "--", ".", *excluded, max_bytes=max(limits.patch_bytes, 0)
    )


def _unreadable(root: Path, changed: Iterable[str]) -> dict[str, str]:
    """Changed files for which git would give up the whole comparison, with the reason."""
    found = {}
    for path in changed:
        file = root / path
        if (
            is_inside(root, path)
            and not file.is_symlink()
            and file.is_file()
            and not os.access(file, os.R_OK)
        ):
            found[path] = "Permission denied"
    return found


def _large(root: Path, changed: Iterable[str], max_bytes: int) -> dict[str, str]:
    """Changed files that are larger than one of a snapshot may be, with the reason."""
    found = {}
    for path in changed:
        try:
            size = (root / path).lstat().st_size
        except OSError:
            continue
        if size > max_bytes:
            found[path] = f"{size} bytes are too many"
    return found


_MAX_EXCLUDED = 500
_DIFF = (
    "diff",
    "--binary",
    "--no-ext-diff",
    "--no-textconv",
    "--no-color",
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


@dataclass
class _Status:
    """What `git status` says. `changed`: the tracked paths whose content differs from the index; `submodules`: those that changed."""

    commit: str = ""
    branch: str = ""
    untracked: list[str] = field(default_factory=list)
    changed: set[str] = field(default_factory=set)
    submodules: list[str] = field(default_factory=list)
    is_changed: bool = False


def _status(listing: bytes) -> _Status:
    """Read the output of `git status --porcelain=v2 -z`."""
    found = _Status()
    entries = iter(listing.split(b"\0"))
    for entry in entries:
        kind, _, rest = entry.partition(b" ")
        if kind == b"#":
            name, _, value = os.fsdecode(rest).partition(" ")
            if name == "branch.oid" and value != "(initial)":
                found.commit = value
            elif name == "branch.head" and value != "(detached)":
                found.branch = value
        elif kind == b"?":
            found.untracked.append(os.fsdecode(rest))
        elif kind in (b"1", b"2", b"u"):
            found.is_changed = True
            fields = rest.split(b" ", _FIELDS[kind])
            path = os.fsdecode(fields[-1])
            if fields[1].startswith(b"S"):
                found.submodules.append(path)
            elif not fields[0].endswith(b"."):
                found.changed.add(path)
            if kind == b"2":
                next(entries, None)  # a renamed file's former path
    return found


_FIELDS = {b"1": 7, b"2": 8, b"u": 9}
"""The fields of a changed entry before its path, by the entry's kind."""


def _empty_tree(root: Path) -> str:
    """The id of a tree with nothing in it, to compare with before the first commit."""
    written, problem = git(root, "hash-object", "--no-filters", "-t", "tree", os.devnull)
    return "HEAD" if problem else written.decode().strip()
