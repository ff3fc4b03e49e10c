"""What `git diff` does not say of a working tree: files that git was told not to compare, content that a filter makes or Git LFS
has, links out of the tree, and what is no file. Nothing of it is opened but regular files, in order to compare them.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from periplus.sdk.snapshots.git import NOTHING_FOUND, Configuration, git

MAX_INDEX_BYTES = 64 << 20
MAX_FOLDERS = 10_000
"""Folders that are searched for what is no file."""
_MAX_ROUNDS = 5
"""Questions to git which folders are ignored: one for each depth of folders without a file of the project."""

ABSENT = "it is not in the working tree, which git was told not to compare (skip-worktree, assume-unchanged)"
LEADS_OUT = "it leads out of the project"
IN_LFS = "Git LFS has its content, and the commit only a pointer to it"
NOT_CHECKED_OUT = "the submodule is not checked out"


@dataclass
class Index:
    """The tracked files of a working tree, by what of them is of interest. All paths are relative to its root.

    `uncompared`: files that git was told not to compare, with the ids of their blobs. `folders`: those of all tracked files.
    `listing`: what git printed of them; a tree can have hundreds of thousands.
    """

    submodules: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    uncompared: dict[str, str] = field(default_factory=dict)
    folders: set[str] = field(default_factory=lambda: {""})
    listing: bytes = b""

    @property
    def has_attributes(self) -> bool:
        """Whether files of the tree give other files attributes, such as a filter."""
        return b"/.gitattributes\0" in self.listing or self.is_tracked(".gitattributes")

    def is_tracked(self, path: str) -> bool:
        """Whether a file has this path."""
        return b"\t" + os.fsencode(path) + b"\0" in self.listing


def read_index(root: Path) -> tuple[Index, str]:
    """The tracked files, and an error or ""."""
    listing, problem = git(root, "ls-files", "-z", "-s", "-v", max_bytes=MAX_INDEX_BYTES)
    index = Index(listing=listing)
    # <tag> <mode> <blob> <stage>\t<path>
    entries = listing.split(b"\0")
    folders = {entry.partition(b"\t")[2].rpartition(b"/")[0] for entry in entries}
    add_folders(index.folders, (f"{os.fsdecode(folder)}/" for folder in folders))
    for entry in entries:
        if not entry or entry.startswith((b"H 100644 ", b"H 100755 ")):
            continue
        about, _, raw = entry.partition(b"\t")
        tag, mode, blob = about.split(b" ")[:3]
        path = os.fsdecode(raw)
        if mode == b"160000":
            index.submodules.append(path)
        elif mode == b"120000":
            index.links.append(path)
        if tag.islower() or tag == b"S":
            index.uncompared[path] = blob.decode()
    return index, problem


def add_folders(folders: set[str], paths: Iterable[str]) -> None:
    """Add the folders of paths, and the folders that these are in."""
    for path in paths:
        folder = path.rpartition("/")[0]
        while folder not in folders:
            folders.add(folder)
            folder = folder.rpartition("/")[0]


def is_inside(root: Path, path: str) -> bool:
    """Whether a path is in the tree itself, with no link on the way that leads elsewhere."""
    parent = (root / path).parent
    try:
        return parent.resolve() == parent
    except (OSError, RuntimeError):
        return False


def compare_uncompared(
    root: Path, uncompared: Mapping[str, str], max_files: int, max_bytes: int
) -> tuple[list[str], dict[str, str]]:
    """Of the files that git was told not to compare, those that differ from their blob, and those that are gone, with the reason."""
    changed: list[str] = []
    gone: dict[str, str] = {}
    compared = 0
    for path, blob in uncompared.items():
        try:
            status = (root / path).lstat()
        except OSError:
            gone[path] = ABSENT
            continue
        compared += 1
        if compared > max_files:
            changed.append(path)  # without a look
        elif not stat.S_ISREG(status.st_mode) or not is_inside(root, path):
            if not stat.S_ISLNK(status.st_mode) or _id(os.fsencode((root / path).readlink()), blob) != blob:
                changed.append(path)
        elif status.st_size > max_bytes or not _is_blob(root / path, blob):
            changed.append(path)
    return changed, gone


def _is_blob(file: Path, blob: str) -> bool:
    try:
        return _id(file.read_bytes(), blob) == blob
    except OSError:
        return False


def _id(content: bytes, like: str) -> str:
    """The id that git gives to a content, by the algorithm of another id."""
    algorithm = hashlib.sha256 if len(like) == 64 else hashlib.sha1
    return algorithm(b"blob %d\0" % len(content) + content).hexdigest()


def filtered(
    root: Path, configuration: Configuration, changed: Collection[str], max_bytes: int
) -> dict[str, str]:
    """Unchanged files whose content the commit has not as it is here: it has what a filter made of it. With the reason."""
    # Of each path that has the attribute, as git would list it, `<mode> <blob> <stage>\t<path>`.
    listing, problem = git(root, "ls-files", "-z", "-s", "--", ".", ":(exclude,attr:!filter)")
    if problem:
        return {"files with filters": problem}
    blobs = {}
    for entry in listing.split(b"\0"):
        about, _, raw = entry.partition(b"\t")
        if raw:
            blobs[raw] = about.split(b" ")[1].decode()
    if not blobs:
        return {}
    names, problem = git(root, "check-attr", "-z", "--stdin", "filter", given=b"\0".join(blobs) + b"\0")
    if problem:
        return {"files with filters": problem}
    omitted = {}
    fields = names.split(b"\0")
    for raw, name in zip(fields[::3], fields[2::3], strict=False):
        path, filter_ = os.fsdecode(raw), os.fsdecode(name)
        file = root / path
        if path in changed or not is_inside(root, path) or not file.is_file() or file.is_symlink():
            continue
        if filter_ == "lfs":
            omitted[path] = IN_LFS
        elif filter_ in configuration.filters and (
            file.stat().st_size > max_bytes or not _is_blob(file, blobs[raw])
        ):
            omitted[path] = f"the commit has what the filter {filter_} makes of it"
    return omitted


def leading_out(root: Path, links: Iterable[str]) -> dict[str, str]:
    """Links out of the tree, with the reason: the commit has where they lead, and not what is there."""
    omitted = {}
    for path in links:
        link = root / path
        try:
            if link.is_symlink() and not link.resolve().is_relative_to(root):
                omitted[path] = LEADS_OUT
        except (OSError, RuntimeError):
            omitted[path] = LEADS_OUT
    return omitted


def no_files(root: Path, index: Index, untracked: Iterable[str]) -> dict[str, str]:
    """Fifos, sockets and devices that git does not ignore, and folders that cannot be searched for them, with the reason."""
    folders = set(index.folders)
    add_folders(folders, untracked)
    apart = {*index.submodules, *(path.rstrip("/") for path in untracked if path.endswith("/"))}
    search = _Search(root, folders, apart)
    for _ in range(_MAX_ROUNDS):
        found = search.run()
        tracked = {path for path in found if index.is_tracked(path)}
        search.omitted |= {path: found[path] for path in tracked}
        unknown = {path: why for path, why in found.items() if path not in tracked}
        if not unknown:
            break
        for path in _not_ignored(root, unknown):
            if unknown[path]:
                search.omitted[path] = unknown[path]
            else:
                search.folders.add(path)
                search.waiting.append(path)
    return search.omitted


@dataclass
class _Search:
    """Looks through the folders of a project for what is no file. `apart`: paths that are not looked at."""

    root: Path
    folders: set[str]
    apart: set[str]
    waiting: list[str] = field(default_factory=lambda: [""])
    omitted: dict[str, str] = field(default_factory=dict)
    searched: int = 0

    def run(self) -> dict[str, str]:
        """What is no file, with what it is, and folders that hold no file of the project, with an empty text."""
        found: dict[str, str] = {}
        while self.waiting:
            folder = self.waiting.pop()
            self.searched += 1
            if self.searched > MAX_FOLDERS:
                self.waiting.clear()
                self.omitted["fifos, sockets and devices"] = (
                    f"only {MAX_FOLDERS} folders were searched for them"
                )
                break
            try:
                entries = list(os.scandir(self.root / folder))
            except OSError as error:
                self.omitted[f"{folder}/"] = error.strerror or "cannot be read"
                continue
            for entry in entries:
                if entry.is_file(follow_symlinks=False) or entry.is_symlink() or entry.name == ".git":
                    continue
                path = f"{folder}/{entry.name}" if folder else entry.name
                if path in self.apart:
                    continue
                if path in self.folders:
                    self.waiting.append(path)
                else:
                    found[path] = "" if entry.is_dir() else _kind(entry)
        return found


def _kind(entry: os.DirEntry[str]) -> str:
    try:
        mode = entry.stat(follow_symlinks=False).st_mode
    except OSError as error:
        return error.strerror or "cannot be read"
    kinds = {
        stat.S_IFIFO: "a fifo",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
    }
    return f"it is {kinds.get(stat.S_IFMT(mode), 'no regular file')}, which has no content of its own"


def _not_ignored(root: Path, paths: Collection[str]) -> list[str]:
    """Those of the paths that git does not ignore."""
    given = b"\0".join(map(os.fsencode, paths)) + b"\0"
    listing, problem = git(root, "check-ignore", "-z", "--stdin", given=given)
    if problem and problem != NOTHING_FOUND:
        return []
    ignored = {os.fsdecode(path) for path in listing.split(b"\0")}
    return [path for path in paths if path not in ignored]
