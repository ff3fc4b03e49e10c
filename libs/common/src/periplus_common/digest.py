"""Names made from contents: canonical bytes, and digests that are blind to how contents were packed."""

import hashlib
import math
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self

import cbor2

from periplus_common.errors import Invalid

CHUNK = 1 << 20


def canonical(value: object) -> bytes:
    """Deterministic CBOR (RFC 8949, 4.2): types stay apart (1, 1.0, "1", true), order of members does not matter.

    Raises `Invalid` for what has no canonical form: NaN, infinities, types CBOR does not know.
    """
    _refuse_nan(value)
    try:
        return cbor2.dumps(value, canonical=True)
    except (cbor2.CBOREncodeError, TypeError, ValueError) as error:
        raise Invalid(f"has no canonical form: {error}") from error


def _refuse_nan(value: object) -> None:
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, float) and not math.isfinite(item):
            raise Invalid("NaN and infinities have no canonical form")
        if isinstance(item, dict):
            stack += item.values()
        elif isinstance(item, list | tuple):
            stack += item


def sha256(content: bytes) -> str:
    """Name bytes: "sha256:" and 64 hex digits."""
    return "sha256:" + hashlib.sha256(content).hexdigest()


def of(value: object) -> str:
    """The digest of a value's canonical form."""
    return sha256(canonical(value))


@dataclass(frozen=True)
class Entry:
    """One thing below an artifact's root."""

    path: str
    kind: str  # "file", "dir" or "link"
    executable: bool = False
    content: str = ""  # of a file: its sha256; of a link: its target


def of_entries(entries: Iterable[Entry]) -> str:
    """The content digest of an artifact: a file's, or a folder's with all below it.

    The root's own name, times, owners and the order of members do not count. A lone file at the root is
    that file, whatever it is called; empty folders count.
    """
    found = sorted(entries, key=lambda entry: entry.path.encode("utf-8", "surrogateescape"))
    if len(found) == 1 and found[0].path == "" and found[0].kind == "file":
        return of(["file", found[0].executable, found[0].content])
    return of(["tree", [[_bytes(e.path), e.kind, e.executable, _bytes(e.content)] for e in found if e.path]])


def of_bytes(content: bytes) -> str:
    """The content digest of an artifact that is one plain file with these bytes."""
    return of_entries([Entry("", "file", False, hashlib.sha256(content).hexdigest())])


def of_stream(stream: IO[bytes]) -> str:
    """The content digest of an artifact that is one plain file, read to its end."""
    return of_entries([Entry("", "file", False, _sha256_of(stream))])


def of_path(root: Path) -> str:
    """The content digest of a file or a folder on disk."""
    if not root.is_dir():
        return of_entries([_entry(root, "")])
    return of_entries(_entry(path, path.relative_to(root).as_posix()) for path in root.rglob("*"))


def of_tar(stream: IO[bytes], *, limit: int = 64 << 30) -> str:
    """The content digest of a tar, compressed or not, as Argo packs an artifact: everything below one root name.

    Raises `Invalid` for what is no tar, holds device files, leaves its root, or is larger than `limit` bytes
    when unpacked.
    """
    entries: list[Entry] = []
    total = 0
    try:
        with tarfile.open(fileobj=stream, mode="r|*", tarinfo=_Member) as archive:
            for member in archive:
                total += member.size
                if total > limit:
                    raise Invalid(f"the archive unpacks to more than {limit} bytes")
                entries.append(_member(archive, member))
    except (tarfile.TarError, EOFError, OSError) as error:
        raise Invalid(f"not a readable tar: {error}") from error
    return of_entries(_below_root(entries))


class _Member(tarfile.TarInfo):
    """A member whose broken header is an error. For tarfile it is the end of the archive, like that of a whole one."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(archive)
        except (tarfile.InvalidHeaderError, tarfile.TruncatedHeaderError) as error:  # type: ignore[attr-defined]
            raise tarfile.ReadError(str(error)) from error


def _member(archive: tarfile.TarFile, member: tarfile.TarInfo) -> Entry:
    path = member.name.strip("/")
    if ".." in path.split("/"):
        raise Invalid(f"the archive leaves its root: {member.name!r}")
    if member.isdir():
        return Entry(path, "dir")
    if member.issym():
        return Entry(path, "link", content=member.linkname)
    content = archive.extractfile(member) if member.isfile() else None
    if content is None:
        raise Invalid(f"the archive holds something that is no file, folder or link: {member.name!r}")
    return Entry(path, "file", bool(member.mode & 0o100), _sha256_of(content))


def _below_root(entries: list[Entry]) -> list[Entry]:
    """Strip the one name that all members share, or that nothing but "." stands for."""
    cleaned = [Entry(_clean(e.path), e.kind, e.executable, e.content) for e in entries]
    roots = {entry.path.split("/", 1)[0] for entry in cleaned if entry.path}
    if len(roots) != 1 or any(entry.path == "" and entry.kind == "dir" for entry in cleaned):
        return cleaned
    return [Entry(e.path.partition("/")[2], e.kind, e.executable, e.content) for e in cleaned]


def _clean(path: str) -> str:
    return "/".join(part for part in path.split("/") if part not in ("", "."))


def _entry(path: Path, name: str) -> Entry:
    if path.is_symlink():
        return Entry(name, "link", content=str(path.readlink()))
    if path.is_dir():
        return Entry(name, "dir")
    with path.open("rb") as stream:
        return Entry(name, "file", bool(path.stat().st_mode & 0o100), _sha256_of(stream))


def _sha256_of(stream: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while chunk := stream.read(CHUNK):
        digest.update(chunk)
    return digest.hexdigest()


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
