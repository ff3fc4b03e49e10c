"""Reading a tar that a stranger made: every bound is checked before memory or time is spent beyond it.

Not the standard library's `tarfile`: it reads extended headers whole into memory, takes 21 µs for an entry (57 µs with
its content), keeps every member, and takes a broken header for the end of the archive.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Literal

from periplus_common.errors import Invalid

BLOCK_BYTES = 512
CHUNK_BYTES = 1 << 20
_PACKED_CHUNK_BYTES = 16 << 10
_GZIP_MAGIC = b"\x1f\x8b"
_END = bytes(BLOCK_BYTES)
_EXTENDED_HEADERS = {b"x": "pax", b"X": "pax", b"g": "global", b"L": "path", b"K": "linkpath"}
_MAX_EXTENDED_HEADERS = 4  # before one entry
_FREE_GZIP_STREAMS = 1000  # in one file; more must have some content
_KINDS: dict[bytes, "Kind"] = {
    b"0": "file", b"\0": "file", b"7": "file", b"1": "hardlink", b"2": "link", b"5": "dir"
}  # fmt: skip

_DEVICES = (b"3", b"4", b"6")

Kind = Literal["file", "dir", "link", "hardlink", "device"]


@dataclass(frozen=True, kw_only=True)
class TarLimits:
    """What one archive may have. `docs/limits.md` has the table.

    `max_entries` counts folders that only the names of entries mention, too. `max_ratio` is what gzip may gain once more
    than `ratio_from_bytes` were unpacked: deflate's fastest level, which the local Argo packs with, gains at most 230,
    its best level 1,030. `max_names_bytes` is for the names and extended headers of all entries together.
    """

    max_entries: int = 100_000
    max_bytes: int = 64 << 30
    max_ratio: int = 250
    ratio_from_bytes: int = 256 << 20
    max_header_bytes: int = 1 << 20
    max_names_bytes: int = 16 << 20
    max_path_bytes: int = 4096
    max_depth: int = 100


DEFAULT_LIMITS = TarLimits()


@dataclass(frozen=True, slots=True)
class Member:
    """An entry: its path without "." and empty parts ("" is the root), and a link's target as it is written."""

    path: str
    kind: Kind
    executable: bool
    mode: int
    size: int
    target: str


class TarReader:
    """The members of a tar, compressed by gzip or not, in one pass over `stream`, which is read in bounded pieces.

    Iterating raises `Invalid` for what is no complete tar, exceeds `limits`, has entries that lead out of its root, or
    that are no file, folder or link (with `devices`, layers of images have some: devices and pipes are allowed too). Errors
    of the stream pass through.
    """

    def __init__(self, stream: IO[bytes], limits: TarLimits, *, devices: bool = False) -> None:
        self._limits = limits
        self._devices = devices
        self._chunks = _unpacked(stream, limits)
        self._chunk, self._at = b"", 0
        self._content_left = self._padding = 0
        self._folders = {""}
        self._entries = self._bytes = self._names = 0
        self._unpacked_bytes = 0

    def __iter__(self) -> Iterator[Member]:
        """The members; the content of each can be read until the next is asked for."""
        while (member := self._next()) is not None:
            yield member

    @property
    def position(self) -> int:
        """How many bytes of the unpacked archive were read."""
        return self._unpacked_bytes - len(self._chunk) + self._at

    def content(self) -> Iterator[bytes]:
        """What is left of the content of the current member, in chunks of at most 1 MiB."""
        while self._content_left:
            chunk = self._some(self._content_left)
            self._content_left -= len(chunk)
            yield chunk

    def _next(self) -> Member | None:
        if self._content_left:
            for _ in self.content():
                pass
        if self._padding:
            self._exactly(self._padding)
        said: dict[str, bytes] = {}
        for _ in range(_MAX_EXTENDED_HEADERS + 1):
            block = self._exactly(BLOCK_BYTES)
            if block == _END:
                if said:
                    raise _broken("an extended header without an entry")
                return None
            if not _has_checksum(block):
                raise _broken("a header with a wrong checksum")
            extended = _EXTENDED_HEADERS.get(block[156:157])
            if extended is None:
                return self._member(block, said)
            said |= self._extended(extended, _number(block[124:136]))
        raise _broken(f"more than {_MAX_EXTENDED_HEADERS} extended headers before one entry")

    def _extended(self, kind: str, size: int) -> dict[str, bytes]:
        """What an extended header says about the next entry: its path, linkpath and size."""
        if size > self._limits.max_header_bytes:
            raise _broken(f"a header of {size} bytes, at most {self._limits.max_header_bytes} are allowed")
        self._spend_names(size)
        body = self._exactly(size)
        self._exactly(-size % BLOCK_BYTES)
        if kind in ("path", "linkpath"):
            return {kind: body.partition(b"\0")[0]}
        records = _records(body)
        if any(name.startswith(b"GNU.sparse") for name in records):
            raise Invalid("the archive has a sparse file: pack it without --sparse")
        named = {
            name: records[name.encode()] for name in ("path", "linkpath", "size") if name.encode() in records
        }
        if kind == "global" and named:
            raise _broken("a global header that names every entry")
        return named

    def _member(self, block: bytes, said: dict[str, bytes]) -> Member:
        name = said.get("path") or _name(block)
        path = self._path(name)
        kind = _KINDS.get(block[156:157])
        if kind == "file" and name.endswith(b"/"):
            kind = "dir"  # so in archives from before POSIX
        if kind is None and self._devices and block[156:157] in _DEVICES:
            kind = "device"
        if kind is None:
            raise Invalid(f"the archive has a member that is no file, folder or link: {path!r}")
        size = 0
        if kind == "file":
            size = _decimal(said["size"]) if "size" in said else _number(block[124:136])
        self._bytes += size
        if self._bytes > self._limits.max_bytes:
            raise Invalid(f"the archive unpacks to more than {self._limits.max_bytes} bytes")
        self._content_left, self._padding = size, -size % BLOCK_BYTES
        target = b""
        if kind in ("link", "hardlink"):
            target = said.get("linkpath") or block[157:257].partition(b"\0")[0]
            self._spend_names(len(target))
        mode = _number(block[100:108]) & 0o7777
        return Member(path, kind, bool(mode & 0o100), mode, size, _text(target))

    def _path(self, name: bytes) -> str:
        """The path of an entry; it and the folders above it, if new, are counted."""
        parts = [part for part in name.split(b"/") if part not in (b"", b".")]
        if name.startswith(b"/") or b".." in parts or b"\0" in name:
            raise Invalid(f"the archive leaves its root: {_text(name[:200])!r}")
        if len(name) > self._limits.max_path_bytes or len(parts) > self._limits.max_depth:
            raise Invalid(
                f"the archive has a path of {len(name)} bytes in {len(parts)} folders, at most "
                f"{self._limits.max_path_bytes} bytes in {self._limits.max_depth} are allowed: {_text(name[:80])!r}"
            )
        path = _text(b"/".join(parts))
        self._count(path)  # duplicates too
        above = path.rpartition("/")[0]
        while above not in self._folders:
            self._folders.add(above)
            self._count(above)
            above = above.rpartition("/")[0]
        return path

    def _count(self, path: str) -> None:
        self._entries += 1
        if self._entries > self._limits.max_entries:
            raise Invalid(f"the archive has more than {self._limits.max_entries} entries")
        self._spend_names(len(path))

    def _spend_names(self, size: int) -> None:
        self._names += size
        if self._names > self._limits.max_names_bytes:
            raise Invalid(
                f"the archive has more than {self._limits.max_names_bytes} bytes of names and headers"
            )

    def _some(self, size: int) -> bytes:
        """At least one and at most `size` bytes."""
        if self._at == len(self._chunk):
            self._chunk, self._at = next(self._chunks, b""), 0
            self._unpacked_bytes += len(self._chunk)
            if not self._chunk:
                raise _broken("it is cut off")
        found = self._chunk[self._at : self._at + size]
        self._at += len(found)
        return found

    def _exactly(self, size: int) -> bytes:
        found = self._chunk[self._at : self._at + size]
        self._at += len(found)
        while len(found) < size:
            found += self._some(size - len(found))
        return found


def is_gzipped_tar(stream: IO[bytes]) -> bool:
    """Whether a stream begins like a tar that was packed with gzip."""
    if stream.read(len(_GZIP_MAGIC)) != _GZIP_MAGIC:
        return False
    stream.seek(0)
    head = b""
    try:
        for chunk in _unpacked(stream, DEFAULT_LIMITS):
            head += chunk[:BLOCK_BYTES]
            if len(head) >= BLOCK_BYTES:
                break
        block = head[:BLOCK_BYTES]
        return len(block) == BLOCK_BYTES and (block == _END or _has_checksum(block))
    except Invalid:
        return False


def _unpacked(stream: IO[bytes], limits: TarLimits) -> Iterator[bytes]:
    """The stream in pieces of 1 byte to 1 MiB, decompressed if it begins as gzip does."""
    head = stream.read(_PACKED_CHUNK_BYTES)
    if head[:2] == _GZIP_MAGIC:
        yield from _gunzip(head, stream, limits)
        return
    while head:
        yield head
        head = stream.read(CHUNK_BYTES)


def _gunzip(packed: bytes, stream: IO[bytes], limits: TarLimits) -> Iterator[bytes]:
    decompress = zlib.decompressobj(wbits=31)
    taken, given, streams = len(packed), 0, 1
    while packed:
        try:
            chunk = decompress.decompress(packed, CHUNK_BYTES)
        except zlib.error as error:
            raise _broken(str(error)) from error
        packed = decompress.unconsumed_tail
        if decompress.eof:  # another stream may follow; each costs time even if it is empty
            packed, decompress = decompress.unused_data.lstrip(b"\0"), zlib.decompressobj(wbits=31)
            streams += 1
        given += len(chunk)
        if given > limits.ratio_from_bytes and given > taken * limits.max_ratio:
            raise Invalid(f"the archive unpacks to more than {limits.max_ratio} times its size")
        if streams > _FREE_GZIP_STREAMS and given < streams * BLOCK_BYTES:
            raise _broken(f"{streams} gzip streams for {given} bytes")
        if chunk:
            yield chunk
        if not packed:
            packed = stream.read(_PACKED_CHUNK_BYTES)
            taken += len(packed)


def _records(body: bytes) -> dict[bytes, bytes]:
    """The records of a pax header: lines `<length> <name>=<value>` with their own length."""
    found, at = {}, 0
    while at < len(body):
        length = _decimal(body[at : at + 8].partition(b" ")[0])
        record = body[at : at + length]
        name, equals, value = record.partition(b" ")[2].partition(b"=")
        if len(record) != length or not equals or not record.endswith(b"\n"):
            raise _broken("an extended header with a wrong length")
        found[name] = value[:-1]
        at += length
    return found


def _has_checksum(block: bytes) -> bool:
    """Whether a header has the sum of its bytes, with spaces for those of the sum."""
    return _number(block[148:156]) == sum(block[:148]) + 8 * 0x20 + sum(block[156:])


def _name(block: bytes) -> bytes:
    name = block[:100].partition(b"\0")[0]
    prefix = block[345:500].partition(b"\0")[0] if block[257:263] == b"ustar\0" else b""
    return prefix + b"/" + name if prefix else name


def _number(field: bytes) -> int:
    """A number of a header: octal digits, or, after a first byte of 128, base 256."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.partition(b"\0")[0].strip()
    if digits.translate(None, b"01234567"):
        raise _broken(f"a header with the number {field!r}")
    return int(digits, 8) if digits else 0


def _decimal(digits: bytes) -> int:
    if not digits.isdigit() or len(digits) > 20:
        raise _broken(f"an extended header with the number {digits[:40]!r}")
    return int(digits)


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _broken(problem: str) -> Invalid:
    return Invalid(f"not a readable tar: {problem}")
