"""What a claim and a snapshot are, when a claim is sound, and the names that are made from it."""

import re
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property

from periplus_common import digest

VERSION = 1  # of the canonical form; another form is another id


@dataclass(frozen=True, order=True)
class Package:
    """A package, its version as written, and "<algorithm>:<hex>" of each file that may be installed."""

    name: str
    version: str
    hashes: tuple[str, ...] = ()
    editable: bool = field(default=False, compare=False)
    """Installed for development, from a source tree; neither stored nor part of any digest."""


@dataclass(frozen=True)
class Platform:
    """The interpreter and the machine."""

    python_version: str = ""
    python_implementation: str = ""
    system: str = ""
    machine: str = ""


@dataclass(frozen=True)
class Part:
    """A piece of a claim that is kept by digest: "sha256:…", its size, and its bytes where they are at hand."""

    digest: str
    size: int
    content: bytes = field(default=b"", repr=False, compare=False)

    @staticmethod
    def of(content: bytes) -> "Part | None":
        """The part that these bytes are; None for none."""
        return Part(digest.sha256(content), len(content), content) if content else None

    @staticmethod
    def of_file(content: bytes) -> "Part":
        """The same, where an empty file is a file all the same."""
        return Part(digest.sha256(content), len(content), content)

    @property
    def key(self) -> str:
        """Where the bytes lie in the artifact store."""
        return f"snapshots/{_spread(self.digest)}"

    @property
    def code_key(self) -> str:
        """Where they lie if they are the code archive."""
        return f"code/{_spread(self.digest)}.tgz"


def _spread(named: str) -> str:
    value = named.removeprefix("sha256:")
    return f"sha256/{value[:2]}/{value[2:4]}/{value}"


@dataclass(frozen=True)
class File:
    """A file that git neither tracks nor ignores, by its path below the root."""

    path: bytes
    part: Part


@dataclass(frozen=True)
class Git:
    """The state of a work tree."""

    commit: str
    branch: str = ""
    remote: str = ""
    patch: Part | None = None
    untracked: tuple[File, ...] = ()

    @property
    def dirty(self) -> bool:
        """Whether the tree differs from its commit."""
        return self.patch is not None or bool(self.untracked)


@dataclass(frozen=True)
class Lockfile:
    """A lockfile as found; its name says its format."""

    name: str
    part: Part


@dataclass(frozen=True)
class Claim:
    """What a client says that it runs with."""

    git: Git | None = None
    lockfile: Lockfile | None = None
    installed: tuple[Package, ...] = ()
    platform: Platform = Platform()
    code: Part | None = None

    def in_order(self) -> "Claim":
        """The same claim whatever order its lists came in: packages sorted and each once, files by path."""
        git = self.git
        if git:
            git = replace(git, untracked=tuple(sorted(git.untracked, key=lambda file: file.path)))
        return replace(self, git=git, installed=tuple(sorted(set(self.installed))))

    @cached_property
    def environment(self) -> str:
        """The digest of what steps on the client's machine run in."""
        machine = [self.platform.system, self.platform.machine]
        python = [self.platform.python_implementation, self.platform.python_version]
        return digest.of([machine, python, _listed(self.installed)])

    @cached_property
    def id(self) -> str:
        """The digest of the claim in canonical form."""
        git, lock = self.git, self.lockfile
        return digest.of(
            {
                "version": VERSION,
                "environment": self.environment,
                "code": self.code.digest if self.code else None,
                "lockfile": [lock.name, lock.part.digest] if lock else None,
                "git": git
                and {
                    "commit": git.commit,
                    "branch": git.branch,
                    "remote": git.remote,
                    "patch": git.patch.digest if git.patch else None,
                    "untracked": [[file.path, file.part.digest] for file in git.untracked],
                },
            }
        )

    @property
    def parts(self) -> tuple[Part, ...]:
        """What is kept under `snapshots/`, each once."""
        found = [file.part for file in self.git.untracked] if self.git else []
        if self.git and self.git.patch:
            found.append(self.git.patch)
        if self.lockfile:
            found.append(self.lockfile.part)
        return tuple({part.digest: part for part in found}.values())


def _listed(packages: tuple[Package, ...]) -> list[list[str]]:
    return [[package.name, package.version] for package in packages]


def set_digest(packages: tuple[Package, ...]) -> str:
    """The digest of a list of packages with their hashes: equal lists are stored once."""
    return digest.of([[package.name, package.version, list(package.hashes)] for package in packages])


def normalised(name: str) -> str:
    """A package's name in normal form (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


@dataclass(frozen=True)
class Snapshot:
    """A claim that is kept, with what was read out of it."""

    project: str
    claim: Claim
    locked: tuple[Package, ...]
    warnings: tuple[str, ...]
    taken_at: datetime
    id: str
    environment: str


@dataclass(frozen=True)
class Taken:
    """What the caller of TakeSnapshot needs."""

    id: str
    environment: str
    code_key: str
    warnings: tuple[str, ...]


def shown(path: bytes) -> str:
    """A path as text that any terminal and any proto can hold, different for different paths.

    Bytes that are not UTF-8, control characters and backslashes are written as escapes.
    """
    text = path.replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
