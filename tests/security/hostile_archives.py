"""Archives that attack whoever reads them, written quickly: deflate's blocks are repeated, not compressed again.

As a program it reads each as the cache and the local Argo do, and prints what that cost.
"""

import gc
import json
import struct
import tarfile
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path

from periplus_common import digest
from periplus_local.argo.executor import archive
from periplus_local.argo.executor.settings import UnpackLimits

MIB = 1 << 20
ZEROS = bytes(16 * MIB)


def header(name: str, kind: bytes = tarfile.REGTYPE, size: int = 0, target: str = "") -> bytes:
    member = tarfile.TarInfo(name)
    member.type, member.size, member.linkname = kind, size, target
    return member.tobuf(tarfile.GNU_FORMAT)


def gzipped(*parts: tuple[bytes, int]) -> bytes:
    """Each part repeated so many times, as one gzip stream (whose last checksum is wrong)."""
    packed = bytearray(b"\x1f\x8b\x08\0\0\0\0\0\0\xff")
    for content, times in parts:
        compressor = zlib.compressobj(9, wbits=-15)
        packed += (compressor.compress(content) + compressor.flush(zlib.Z_FULL_FLUSH)) * times
    return bytes(packed) + b"\x03\0" + bytes(8)


def tar_of(*members: bytes) -> bytes:
    return one_stream(b"".join(members) + bytes(1024))


def entries(count: int) -> bytes:
    block = b"".join(header(f"a/{number}") for number in range(10_000))
    return gzipped((block, count // 10_000), (bytes(1024), 1))


def extended_header(kind: bytes, size: int) -> bytes:
    return gzipped((header("././@LongLink", kind, size), 1), (ZEROS, size // len(ZEROS)), (header("a"), 1))


def bomb(size: int) -> bytes:
    return gzipped((header("zeros", size=size), 1), (ZEROS, size // len(ZEROS)), (bytes(1024), 1))


def bomb_of_streams(size: int) -> bytes:
    """As `bomb`, in one gzip stream for each 16 MiB."""
    return tar_head(size) + one_stream(ZEROS) * (size // len(ZEROS))


def tar_head(size: int) -> bytes:
    return one_stream(header("zeros", size=size))


def one_stream(content: bytes) -> bytes:
    compressor = zlib.compressobj(9, wbits=31)
    return compressor.compress(content) + compressor.flush()


def empty_streams(count: int) -> bytes:
    return tar_head(1 << 20) + one_stream(b"") * count


def pax(**records: str) -> bytes:
    body = b""
    for name, value in records.items():
        record = f" {name.replace('__', '.')}={value}\n".encode()
        length = next(n for n in range(len(record), len(record) + 9) if n == len(record) + len(str(n)))
        body += str(length).encode() + record
    return header("././@PaxHeader", tarfile.XHDTYPE, len(body)) + body + bytes(-len(body) % 512)


def long_names(count: int) -> bytes:
    name = "/".join(["n" * 200] * 20)
    long = (
        header("././@LongLink", tarfile.GNUTYPE_LONGNAME, len(name)) + name.encode() + bytes(-len(name) % 512)
    )
    return gzipped(((long + header("x")) * 100, count // 100), (bytes(1024), 1))


def negative_size() -> bytes:
    block = bytearray(header("a"))
    block[124:136] = b"\xff" * 12
    block[148:156] = b"%06o\0 " % (sum(block) - sum(block[148:156]) + 256)
    return tar_of(bytes(block))


TARS: dict[str, Callable[[], bytes]] = {
    "1.2 million entries": lambda: entries(1_200_000),
    "a pax header of 700 MiB": lambda: extended_header(tarfile.XHDTYPE, 704 * MIB),
    "a global pax header of 700 MiB": lambda: extended_header(tarfile.XGLTYPE, 704 * MIB),
    "a GNU name of 700 MiB": lambda: extended_header(tarfile.GNUTYPE_LONGNAME, 704 * MIB),
    "a GNU link target of 700 MiB": lambda: extended_header(tarfile.GNUTYPE_LONGLINK, 704 * MIB),
    "10 million pax headers": lambda: gzipped((pax(comment="x") * 10_000, 1000)),
    "30 GB of zeros": lambda: bomb(30 << 30),
    "30 GB of zeros in 1,920 gzip streams": lambda: bomb_of_streams(30 << 30),
    "3 million empty gzip streams": lambda: empty_streams(3_000_000),
    "names of 4 KiB for 100,000 entries": lambda: long_names(100_000),
    "a size of 1 TiB before a few bytes": lambda: tar_of(header("a", size=1 << 40)),
    "a size of 8 GiB before a few bytes": lambda: tar_of(header("a", size=8 << 30)),
    "a negative size": negative_size,
    "a size of 10^19 in a pax header": lambda: tar_of(pax(size="1" + "0" * 19), header("a")),
    "a size of 10,000 digits": lambda: tar_of(pax(size="9" * 10_000), header("a")),
    "a path of 2,000 folders": lambda: tar_of(pax(path="d/" * 2000 + "f"), header("a")),
    "a path of 2,000 folders, of a folder": lambda: tar_of(pax(path="d/" * 2000), header("a", tarfile.DIRTYPE)),
    "a sparse file of 1 TiB": lambda: tar_of(pax(GNU__sparse__major="1", GNU__sparse__realsize=str(1 << 40)), header("a")),
    "an old sparse file": lambda: tar_of(header("a", tarfile.GNUTYPE_SPARSE)),
    "a name with a NUL": lambda: tar_of(pax(path="a\0b"), header("a")),
    "an absolute name": lambda: tar_of(header("/tmp/evil")),
    "a name that climbs": lambda: tar_of(header("a/../../evil")),
    "a hard link that climbs": lambda: tar_of(header("a", tarfile.LNKTYPE, target="../../etc/passwd")),
    "a device": lambda: tar_of(header("a", tarfile.CHRTYPE)),
    "a block device": lambda: tar_of(header("a", tarfile.BLKTYPE)),
    "a pipe": lambda: tar_of(header("a", tarfile.FIFOTYPE)),
}  # fmt: skip


def zip_of(count: int, *, unpacked: int = 0, method: int = 8, name: bytes = b"%08d") -> bytes:
    """A zip whose entries all have the content of the first, so that few bytes unpack to many."""
    content = zlib.compressobj(9, wbits=-15)
    packed = content.compress(bytes(min(unpacked, 16 * MIB))) + content.flush()
    local = (
        struct.pack("<4sHHHHHIIIHH", b"PK\3\4", 20, 0, method, 0, 0, 0, len(packed), unpacked, 1, 0)
        + b"a"
        + packed
    )

    def entry(number: int) -> bytes:
        named = name % number if b"%" in name else name
        fields = (20, 20, 0, method, 0, 0, 0, len(packed), unpacked, len(named), 0, 0, 0, 0, 0, 0)
        return struct.pack("<4sHHHHHHIIIHHHHHII", b"PK\1\2", *fields) + named

    step = min(count, 10_000)
    directory = b"".join(map(entry, range(step))) * (count // step)
    many = min(count, 0xFFFE)
    return (
        local
        + directory
        + struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, many, many, len(directory), len(local), 0)
    )


ZIPS: dict[str, Callable[[], bytes]] = {
    "1.2 million entries": lambda: zip_of(1_200_000),
    "30 GB of zeros in one stream for all": lambda: zip_of(15, unpacked=2 << 30),
    "a path of 2,000 folders": lambda: zip_of(1, name=b"d/" * 2000 + b"f"),
    "LZMA, whose memory the file chooses": lambda: zip_of(1, method=14),
    "a name that climbs": lambda: zip_of(1, name=b"../evil"),
}


def main() -> None:
    """Print, for each door and archive: the error, processor seconds, and MiB of memory at the peak (0 if unknown)."""
    costs = []
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "archive"
        for name, make in TARS.items():
            file.write_bytes(make())
            costs.append(("digest", name, *_cost(lambda: _read_digest(file))))
            costs.append(("tar", name, *_cost(lambda: _unpack_tar(file))))
        for name, make in ZIPS.items():
            file.write_bytes(make())
            costs.append(("zip", name, *_cost(lambda: archive.unpack_zip(file, _new(file), UnpackLimits()))))
    print(json.dumps(costs))


def _read_digest(file: Path) -> str:
    with file.open("rb") as stream:
        return digest.of_tar(stream)


def _unpack_tar(file: Path) -> None:
    if archive.is_tar(file):
        archive.unpack_tar(file, _new(file), UnpackLimits())


def _new(file: Path) -> Path:
    return Path(tempfile.mkdtemp(dir=file.parent)) / "unpacked"


def _cost(read: Callable[[], object]) -> tuple[str, float, int]:
    before, started = _peak_mib(reset=True), time.process_time()
    try:
        error = f"accepted: {read()}"
    except Exception as refused:  # noqa: BLE001 - the kind of the error is what the test looks at
        error = f"{type(refused).__name__}: {refused}"
    return error, time.process_time() - started, _peak_mib() - before


def _peak_mib(*, reset: bool = False) -> int:
    status = Path("/proc/self/status")
    if not status.exists():
        return 0
    if reset:
        gc.collect()
        Path("/proc/self/clear_refs").write_text("5")
    return (
        next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        >> 10
    )


if __name__ == "__main__":
    main()
