"""Digests: of values in a canonical form, and of artifacts whichever way they were packed."""

import hashlib
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import IO

import cbor2

from periplus_common.errors import Invalid
from periplus_common.tar import CHUNK_BYTES, DEFAULT_LIMITS, Member, TarLimits, TarReader

MAX_DEPTH = 500  # of a value; the encoder recurses, and Python's own JSON parser allows less than a thousand


def canonical(value: object) -> bytes:
    """Deterministic CBOR (RFC 8949, 4.2): values of different types differ (1, 1.0, "1", true), whatever the members' order.

    Raises `Invalid` for what has no canonical form: NaN, infinities, types that CBOR does not have, values nested too
    deep, and values that contain themselves.
    """
    _check(value)
    try:
        return cbor2.dumps(value, canonical=True)
    except (cbor2.CBOREncodeError, TypeError, ValueError, RecursionError) as error:
        raise Invalid(f"has no canonical form: {error}") from error


def _check(value: object) -> None:
    """Raise `Invalid` for what the encoder accepts and we do not, and for what overflows its stack."""
    stack = [(value, 0)]
    while stack:
        item, depth = stack.pop()
        if depth > MAX_DEPTH:
            raise Invalid(f"a value nested more than {MAX_DEPTH} levels deep has no canonical form")
        if isinstance(item, float) and not math.isfinite(item):
            raise Invalid("NaN and infinities have no canonical form")
        if isinstance(item, dict):
            stack += [(inner, depth + 1) for pair in item.items() for inner in pair]
        elif isinstance(item, list | tuple | set | frozenset):
            stack += [(inner, depth + 1) for inner in item]


def sha256(content: bytes) -> str:
    """The digest of bytes: "sha256:" and 64 hex digits."""
    return "sha256:" + hashlib.sha256(content).hexdigest()


def of(value: object) -> str:
    """The digest of a value's canonical form."""
    return sha256(canonical(value))


@dataclass(frozen=True, slots=True)
class Entry:
    """A file, folder or link below an artifact's root."""

    path: str
    kind: str  # "file", "dir" or "link"
    executable: bool = False
    content: str = ""  # of a file: its sha256; of a link: its target


def of_entries(entries: Iterable[Entry]) -> str:
    """The content digest of an artifact: a file's, or a folder's with all below it.

    The root's name, times, owners and the members' order do not count. An artifact of one file at the root has the
    digest of that file, whatever its name. Empty folders count.
    """
    found = sorted(entries, key=lambda entry: entry.path.encode("utf-8", "surrogateescape"))
    if len(found) == 1 and found[0].path == "" and found[0].kind != "dir":
        lone = found[0]
        return of(
            ["file", lone.executable, lone.content] if lone.kind == "file" else ["link", _bytes(lone.content)]
        )
    return of(["tree", [[_bytes(e.path), e.kind, e.executable, _bytes(e.content)] for e in found if e.path]])


def of_bytes(content: bytes) -> str:
    """The content digest of an artifact that is one plain file with these bytes."""
    return of_entries([Entry("", "file", False, hashlib.sha256(content).hexdigest())])


def of_stream(stream: IO[bytes]) -> str:
    """The content digest of an artifact that is one plain file, read to its end."""
    return of_entries([Entry("", "file", False, _sha256_of(stream))])


def of_tar(stream: IO[bytes], limits: TarLimits = DEFAULT_LIMITS) -> str:
    """The content digest of a tar, compressed or not, as Argo packs an artifact: everything below one root name.

    Raises `Invalid` for what `TarReader` refuses, and for members below something that is no folder. Errors of the
    stream pass through.
    """
    reader = TarReader(stream, limits)
    found: dict[str, Entry] = {}
    for member in reader:
        # Of two members with one name, unpacking leaves the later.
        found[member.path] = _entry(reader, member, found)
    return of_entries(_with_folders(_below_root(found.values())))


def _entry(reader: TarReader, member: Member, before: Mapping[str, Entry]) -> Entry:
    if member.kind == "dir":
        return Entry(member.path, "dir")
    if member.kind == "link":
        return Entry(member.path, "link", content=member.target)
    if member.kind == "hardlink":
        linked = before.get(_clean(member.target))
        if linked is None or linked.kind != "file":
            raise Invalid(f"the archive has a hard link to no file before it: {member.path!r}")
        return replace(linked, path=member.path)
    digest = hashlib.sha256()
    for chunk in reader.content():
        digest.update(chunk)
    return Entry(member.path, "file", member.executable, digest.hexdigest())


def _below_root(entries: Collection[Entry]) -> list[Entry]:
    """Strip the first path component where all members share it, and the archive has no root "." of its own."""
    roots = {entry.path.split("/", 1)[0] for entry in entries if entry.path}
    if len(roots) != 1 or any(entry.path == "" and entry.kind == "dir" for entry in entries):
        return list(entries)
    return [replace(entry, path=entry.path.partition("/")[2]) for entry in entries]


def _with_folders(entries: Collection[Entry]) -> list[Entry]:
    """The entries, and the folders above them, which not every archive lists."""
    found = {entry.path: entry for entry in entries}
    for entry in entries:
        above = entry.path
        while above:
            above = above.rpartition("/")[0]
            if above in found and found[above].kind == "dir":
                break
            if above in found:
                raise Invalid(f"the archive has {entry.path!r} below {above!r}, which is no folder")
            found[above] = Entry(above, "dir")
    return list(found.values())


def _clean(path: str) -> str:
    return "/".join(part for part in path.split("/") if part not in ("", "."))


def _sha256_of(stream: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while chunk := stream.read(CHUNK_BYTES):
        digest.update(chunk)
    return digest.hexdigest()


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
