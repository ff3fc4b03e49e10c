"""What a run claims to be made with: code, lockfile, Python, platform.

It is a claim because a client makes it: what really ran is observed by the services.
"""

from __future__ import annotations

import codecs
import json
import os
import re
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from periplus.sdk.snapshots.repository import Repository, read_repository
from periplus.sdk.snapshots.working_tree import LEADS_OUT, is_inside


@dataclass(frozen=True)
class SnapshotLimits:
    """How much of a working tree goes into a snapshot; what is beyond is named in `Snapshot.omitted`.

    `sent_lockfile_bytes`: the largest lockfile that the snapshotter accepts.
    """

    file_bytes: int = 2 << 20
    untracked_bytes: int = 8 << 20
    untracked_files: int = 2_000
    lockfile_bytes: int = 16 << 20
    sent_lockfile_bytes: int = 8 << 20
    patch_bytes: int = 8 << 20


@dataclass(frozen=True)
class Lockfile:
    """A file that pins packages. `path` is relative to the directory that was collected, and may lead upwards.

    `format`: uv, pylock, poetry, pdm, pipfile or requirements.
    """

    path: str
    format: str
    content: bytes


@dataclass(frozen=True)
class Snapshot:
    """What `collect` found. Texts are empty where nothing was found.

    `commit` is a full id. `patch` is `git diff --binary` against it, of submodules as well, and `untracked` maps paths, relative
    to the repository's root and as `os.fsdecode` gives them, to the bytes of files that git neither tracks nor ignores, and of
    changed ones that it was told not to compare; `executable` are those of them that their owner may execute. `omitted` maps what was left out to the reason, as a snapshot with omissions does not say all that ran.
    """

    commit: str = ""
    branch: str = ""
    remote: str = ""
    patch: bytes = b""
    untracked: dict[str, bytes] = field(default_factory=dict)
    executable: frozenset[str] = frozenset()
    omitted: dict[str, str] = field(default_factory=dict)
    lockfile: Lockfile | None = None
    python_version: str = ""
    python_implementation: str = ""
    platform: str = ""
    libc: str = ""

    @property
    def dirty(self) -> bool:
        """Whether the code is not what the commit says."""
        return bool(self.patch or self.untracked or self.omitted)

    @cached_property
    def packages(self) -> dict[str, str]:
        """The packages that this Python can import, name → version; looked up with the first access."""
        return packages()


def collect(directory: Path, limits: SnapshotLimits | None = None) -> Snapshot:
    """Collect the snapshot of a project directory: its git repository if it is in one, its lockfile, and this Python.

    What cannot be read is named in `omitted` and does not raise. Raises NotADirectoryError for no directory.
    """
    directory = directory.resolve(strict=True)
    if not directory.is_dir():
        raise NotADirectoryError(directory)
    limits = limits or SnapshotLimits()
    repository = read_repository(directory, limits.patch_bytes, limits.file_bytes, limits.untracked_files)
    omitted = dict(repository.omitted)
    untracked, executable = _untracked(repository, omitted, limits)
    lockfile = _lockfile(directory, repository.root, omitted, limits.lockfile_bytes)
    system = os.uname()
    return Snapshot(
        commit=repository.commit,
        branch=repository.branch,
        remote=repository.remote,
        patch=repository.patch,
        untracked=untracked,
        executable=executable,
        omitted=omitted,
        lockfile=lockfile,
        python_version=".".join(map(str, sys.version_info[:3])),
        python_implementation=sys.implementation.name,
        platform=f"{system.sysname.lower()}-{system.machine}",
        libc=_libc(),
    )


# Name and version are in the name of a package's metadata folder; reading the files would take a tenth of a second.
_INSTALLED = re.compile(r"([A-Za-z0-9][A-Za-z0-9._]*)-([0-9][^-]*)\.dist-info")


def packages() -> dict[str, str]:
    """Name → version of every installed package, names in their normal form (lower case, `-`)."""
    found: dict[str, str] = {}
    for name, version, _ in _distributions():
        # Python imports the first of two copies.
        found.setdefault(name, version)
    return dict(sorted(found.items()))


def editable_packages() -> set[str]:
    """The normal names of the packages that are installed for development (PEP 660): no lockfile pins them."""
    return {name for name, _, folder in _distributions() if _is_editable(folder)}


def _distributions() -> Iterator[tuple[str, str, Path]]:
    """Normal name, version and metadata folder of every installed package, in the order of the import path."""
    for directory in sys.path:
        try:
            entries = sorted(entry.name for entry in Path(directory or ".").iterdir())
        except OSError:
            continue
        for entry in entries:
            if match := _INSTALLED.fullmatch(entry):
                yield _normal(match[1]), match[2], Path(directory, entry)
            elif entry.endswith((".dist-info", ".egg-info")):
                name, version = _read_metadata(Path(directory, entry))
                if name:
                    yield _normal(name), version, Path(directory, entry)


def _is_editable(folder: Path) -> bool:
    try:
        origin = json.loads((folder / "direct_url.json").read_text(encoding="utf-8"))
        return bool(origin["dir_info"]["editable"])
    except (OSError, ValueError, LookupError, TypeError):
        return False


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _read_metadata(folder: Path) -> tuple[str, str]:
    """Name and version of a package whose folder does not say them; empty where it is broken."""
    import importlib.metadata

    metadata: Any = importlib.metadata.PathDistribution(folder).metadata
    return metadata["Name"] or "", metadata["Version"] or ""


def _untracked(
    repository: Repository, omitted: dict[str, str], limits: SnapshotLimits
) -> tuple[dict[str, bytes], frozenset[str]]:
    """The content of the untracked files, within the limits, and which of them are executable."""
    contents: dict[str, bytes] = {}
    executable = set()
    total = 0
    for path in repository.untracked:
        if len(contents) == limits.untracked_files:
            omitted["untracked files"] = f"there are more than {limits.untracked_files}"
            break
        file = repository.root / path
        try:
            status = file.lstat()
            if not stat.S_ISREG(status.st_mode):
                omitted[path] = "no regular file"
            elif not is_inside(repository.root, path):
                omitted[path] = LEADS_OUT
            elif status.st_size > limits.file_bytes or total + status.st_size > limits.untracked_bytes:
                omitted[path] = f"{status.st_size} bytes are too many"
            else:
                contents[path] = file.read_bytes()
                total += len(contents[path])
                if status.st_mode & stat.S_IXUSR:
                    executable.add(path)
        except OSError as unreadable:
            omitted[path] = unreadable.strerror or "cannot be read"
    return contents, frozenset(executable)


_LOCKFILES = (
    ("uv.lock", "uv"),
    ("pylock.toml", "pylock"),
    ("poetry.lock", "poetry"),
    ("pdm.lock", "pdm"),
    ("requirements.txt", "requirements"),
    ("requirements.lock", "requirements"),
    ("Pipfile.lock", "pipfile"),
)
_NOT_READ = ("pixi.lock", "conda-lock.yml", "conda-lock.yaml")
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
"""Those of UTF-32 first: that of UTF-16 is the beginning of one."""


def _lockfile(directory: Path, root: Path | None, omitted: dict[str, str], max_bytes: int) -> Lockfile | None:
    """The nearest lockfile, from the directory up to the repository's root; those that are not read are named in `omitted`."""
    pins_nothing: dict[str, str] = {}
    folders = [directory]
    while root is not None and folders[-1] != root and folders[-1] != folders[-1].parent:
        folders.append(folders[-1].parent)
    for folder in folders:
        for name in _NOT_READ:
            if (folder / name).is_file():
                omitted[os.path.relpath(folder / name, directory)] = "lockfiles of this format are not read"
        for name, form in _LOCKFILES:
            file = folder / name
            if not file.is_file():
                continue
            path = os.path.relpath(file, directory)
            try:
                if not file.resolve().is_relative_to(root or directory):
                    omitted[path] = LEADS_OUT
                    continue
                if file.stat().st_size > max_bytes:
                    omitted[path] = "too large for a lockfile"
                    continue
                content = file.read_bytes()
            except OSError as unreadable:
                omitted[path] = unreadable.strerror or "cannot be read"
                continue
            if form != "requirements" or "--hash" in _text(content):
                return Lockfile(path, form, content)
            pins_nothing[path] = "it has no hashes, so that it pins nothing, and is not read"
    omitted |= pins_nothing
    return None


def _text(content: bytes) -> str:
    """A file of requirements as pip decodes it: by its byte order mark, as PowerShell writes UTF-16."""
    encoding = next((name for mark, name in _BYTE_ORDER_MARKS if content.startswith(mark)), "utf-8")
    return content.decode(encoding, "replace")


def _libc() -> str:
    """The C library and its version, as `glibc 2.36`, where the system says it."""
    if "CS_GNU_LIBC_VERSION" not in getattr(os, "confstr_names", {}):
        return ""
    try:
        return os.confstr("CS_GNU_LIBC_VERSION") or ""
    except OSError:
        return ""
