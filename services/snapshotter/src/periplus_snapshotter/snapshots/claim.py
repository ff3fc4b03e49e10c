"""What a client says that it runs with, its canonical form, and the digests that are computed from it."""

import re
from dataclasses import dataclass, field, replace
from functools import cached_property

from periplus_common import digest

CANONICAL_FORM_VERSION = 1
"""Part of every snapshot's id: a change of the canonical form changes all ids."""


@dataclass(frozen=True, order=True)
class Package:
    """A package, its version as written, and "<algorithm>:<hex>" of each distribution file that the lockfile allows."""

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
class Blob:
    """A part of a claim that is stored by its digest. `content` is empty if only the digest was loaded."""

    digest: str
    size_bytes: int
    content: bytes = field(default=b"", repr=False, compare=False)

    @staticmethod
    def of(content: bytes) -> "Blob":
        """The blob with this content, which may be empty."""
        return Blob(digest.sha256(content), len(content), content)

    @staticmethod
    def of_optional(content: bytes) -> "Blob | None":
        """The blob with this content; None if it is empty, as of a field of the contract that is absent."""
        return Blob.of(content) if content else None

    @property
    def key(self) -> str:
        """Its key in the artifact repository."""
        return f"snapshots/{_key_suffix(self.digest)}"

    def code_key(self, project: str) -> str:
        """Its key in the artifact repository if it is a code archive, which only manifests of its project may name."""
        return f"code/{project}/{_key_suffix(self.digest)}.tgz"


def _key_suffix(digest_: str) -> str:
    value = digest_.removeprefix("sha256:")
    return f"sha256/{value[:2]}/{value[2:4]}/{value}"


@dataclass(frozen=True)
class File:
    """A file that git neither tracks nor ignores, by its path relative to the project's root."""

    path: bytes
    blob: Blob
    executable: bool = False


@dataclass(frozen=True, order=True)
class OmittedFile:
    """A file or another part of the work tree that the claim has not, and why."""

    path: bytes
    reason: str


@dataclass(frozen=True)
class GitState:
    """The state of a git work tree."""

    commit: str
    branch: str = ""
    remote: str = ""
    patch: Blob | None = None
    untracked: tuple[File, ...] = ()

    @property
    def is_dirty(self) -> bool:
        """Whether the work tree differs from its commit."""
        return self.patch is not None or bool(self.untracked)


@dataclass(frozen=True)
class Lockfile:
    """A lockfile; its name says its format."""

    name: str
    blob: Blob


@dataclass(frozen=True)
class LibraryTemplate:
    """A WorkflowTemplate or ClusterWorkflowTemplate that the workflow refers to: kind and name, and its content."""

    name: str
    blob: Blob


@dataclass(frozen=True)
class Claim:
    """What a client says that it runs with, and the library templates that the dispatcher read."""

    git: GitState | None = None
    lockfile: Lockfile | None = None
    installed: tuple[Package, ...] = ()
    platform: Platform = Platform()
    code_archive: Blob | None = None
    templates: tuple[LibraryTemplate, ...] = ()
    omitted: tuple[OmittedFile, ...] = ()

    def canonical(self) -> "Claim":
        """The same claim in canonical order: packages sorted and without duplicates, files by path, templates by name."""
        git = self.git
        if git:
            git = replace(git, untracked=tuple(sorted(git.untracked, key=lambda file: file.path)))
        templates = tuple(sorted(self.templates, key=lambda template: template.name))
        return replace(
            self,
            git=git,
            installed=tuple(sorted(set(self.installed))),
            templates=templates,
            omitted=tuple(sorted(self.omitted)),
        )

    @cached_property
    def environment(self) -> str:
        """Digest of installed packages, interpreter and platform."""
        machine = [self.platform.system, self.platform.machine]
        python = [self.platform.python_implementation, self.platform.python_version]
        return digest.of([machine, python, [[package.name, package.version] for package in self.installed]])

    @cached_property
    def id(self) -> str:
        """Digest of the claim, which must be canonical."""
        git, lockfile = self.git, self.lockfile
        templates = [[template.name, template.blob.digest] for template in self.templates]
        omitted = [[file.path, file.reason] for file in self.omitted]
        return digest.of(
            {
                **({"templates": templates} if templates else {}),
                **({"omitted": omitted} if omitted else {}),
                "version": CANONICAL_FORM_VERSION,
                "environment": self.environment,
                "code": self.code_archive.digest if self.code_archive else None,
                "lockfile": [lockfile.name, lockfile.blob.digest] if lockfile else None,
                "git": git
                and {
                    "commit": git.commit,
                    "branch": git.branch,
                    "remote": git.remote,
                    "patch": git.patch.digest if git.patch else None,
                    "untracked": [
                        [file.path, file.blob.digest, *(["executable"] if file.executable else [])]
                        for file in git.untracked
                    ],
                },
            }
        )

    @property
    def blobs(self) -> tuple[Blob, ...]:
        """Patch, untracked files, lockfile and templates, without duplicates. The code archive is stored under another key."""
        found = [file.blob for file in self.git.untracked] if self.git else []
        if self.git and self.git.patch:
            found.append(self.git.patch)
        if self.lockfile:
            found.append(self.lockfile.blob)
        found += [template.blob for template in self.templates]
        return tuple({blob.digest: blob for blob in found}.values())


def package_set_digest(packages: tuple[Package, ...]) -> str:
    """Digest of a list of packages with their hashes: equal lists are stored once."""
    return digest.of([[package.name, package.version, list(package.hashes)] for package in packages])


def normalize_package_name(name: str) -> str:
    """The normalized name (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def printable_path(path: bytes) -> str:
    """A path as printable text. Different paths give different texts.

    Bytes that are not UTF-8, control characters and backslashes are escaped.
    """
    text = path.replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
