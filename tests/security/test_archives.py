"""Archives of strangers: refused at the first breach, for little time and memory, and huge honest ones unpack."""

import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from security import hostile_archives
from security.hostile_archives import MIB, header, one_stream, pax, tar_of, zip_of

from periplus_common import digest
from periplus_common.errors import Invalid
from periplus_common.tar import TarLimits
from periplus_local.argo.executor import archive
from periplus_local.argo.executor.job import PodError
from periplus_local.argo.executor.settings import UnpackLimits

PROCESSOR_SECONDS = 15.0  # 1 on a machine that does nothing else
MEMORY_MIB = 64
READS = [(door, name) for name in hostile_archives.TARS for door in ("digest", "tar")]
READS += [("zip", name) for name in hostile_archives.ZIPS]


ZIP_ERRORS = {
    "1.2 million entries": "bytes of names and headers",
    "30 GB of zeros in one stream for all": "times its size",
    "a path of 2,000 folders": "in 2000 folders",
    "LZMA, whose memory the file chooses": "neither stored nor deflated",
    "a name that climbs": "leaves its folder",
}
"""By what each is refused, as something else would refuse most of them later."""


@pytest.fixture(scope="module")
def costs() -> dict[tuple[str, str], tuple[str, float, int]]:
    """Error, processor seconds and MiB of each hostile archive at each door, read in a process of its own."""
    done = subprocess.run(
        [sys.executable, hostile_archives.__file__], capture_output=True, check=True, text=True, timeout=120
    )
    return {
        (door, name): (error, seconds, mib) for door, name, error, seconds, mib in json.loads(done.stdout)
    }


@pytest.mark.parametrize(("door", "name"), READS)
def test_a_hostile_archive_is_refused_for_a_second_and_64_mib(costs, door: str, name: str):
    error, seconds, mib = costs[door, name]
    assert error.startswith("Invalid: " if door == "digest" else "PodError: ")
    assert door != "zip" or ZIP_ERRORS[name] in error
    assert seconds < PROCESSOR_SECONDS
    assert mib < MEMORY_MIB


def test_nothing_is_written_outside_of_the_folder(costs):
    assert not Path("/tmp/evil").exists()


def test_an_archive_within_an_archive_stays_packed(tmp_path: Path):
    inner = hostile_archives.bomb(1 << 30)
    file = tmp_path / "outer"
    file.write_bytes(
        one_stream(header("inner.tar.gz", size=len(inner)) + inner + bytes(-len(inner) % 512 + 1024))
    )
    archive.unpack_tar(file, tmp_path / "unpacked", UnpackLimits())
    assert (tmp_path / "unpacked/inner.tar.gz").read_bytes() == inner


def test_a_large_artifact_of_ordinary_content_has_a_digest_and_unpacks(tmp_path: Path):
    """More than the size from which the ratio counts; what bounds it is the disk."""
    limits = TarLimits(ratio_from_bytes=4 * MIB)
    content = os.urandom(8 * MIB)
    file = tmp_path / "model"
    with tarfile.open(file, "w:gz", compresslevel=1) as tar:
        member = tarfile.TarInfo("model")
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    archive.unpack_tar(file, tmp_path / "unpacked", UnpackLimits(tar=limits))
    assert (tmp_path / "unpacked/model").read_bytes() == content
    with file.open("rb") as stream:
        assert digest.of_tar(stream, limits) == digest.of_bytes(content)


def test_zeros_that_the_local_argo_packed_are_no_bomb(tmp_path: Path):
    """Deflate's fastest level, which it packs with, gains at most 230 of the 250 times that are allowed."""
    zeros, file = tmp_path / "zeros", tmp_path / "packed"
    with zeros.open("wb") as sparse:
        sparse.truncate(32 * MIB)
    archive.pack_tar(zeros, "zeros", file)
    limits = UnpackLimits(tar=TarLimits(ratio_from_bytes=4 * MIB))
    archive.unpack_tar(file, tmp_path / "unpacked", limits)
    assert (tmp_path / "unpacked/zeros").stat().st_size == 32 * MIB


def test_an_archive_that_would_fill_the_disk_is_refused_before_it_is_written(tmp_path: Path):
    file = tmp_path / "packed"
    limits = UnpackLimits(min_free_bytes=1 << 60)
    for content, unpack in ((tar_of(header("a")), archive.unpack_tar), (zip_of(1), archive.unpack_zip)):
        file.write_bytes(content)
        with pytest.raises(PodError, match="more space than the disk has"):
            unpack(file, tmp_path / unpack.__name__, limits)
        assert not list((tmp_path / unpack.__name__).iterdir())


@pytest.mark.parametrize("make", ["python pax", "python gnu", "python ustar"])
def test_the_archives_that_tarfile_writes_are_read_as_tarfile_reads_them(tmp_path: Path, make: str):
    file, folder = tmp_path / "packed", tmp_path / "root"
    nested = folder / ("d" * 90) / ("e" * 90)
    nested.mkdir(parents=True)
    (nested / ("ö" * (4 if make == "python ustar" else 80))).write_bytes(b"x" * 700)
    (folder / "link").symlink_to("t" * (90 if make == "python ustar" else 200))
    (folder / "run.sh").write_bytes(b"#!/bin/sh\n")
    (folder / "run.sh").chmod(0o755)
    (folder / "hard").hardlink_to(folder / "run.sh")
    form = {"pax": tarfile.PAX_FORMAT, "gnu": tarfile.GNU_FORMAT, "ustar": tarfile.USTAR_FORMAT}[
        make.split()[1]
    ]
    with tarfile.open(file, "w:gz", format=form) as tar:
        tar.add(folder, "root")
    archive.unpack_tar(file, tmp_path / "unpacked", UnpackLimits())
    with tarfile.open(file) as tar:
        for member in tar:
            path = tmp_path / "unpacked" / member.name
            assert path.is_symlink() == member.issym()
            assert path.is_dir() == member.isdir()
            if member.isreg():
                assert path.read_bytes() == tar.extractfile(member).read()
                assert path.stat().st_mode & 0o777 == member.mode | 0o600
            elif member.issym():
                assert str(path.readlink()) == member.linkname


@pytest.mark.parametrize(
    ("limits", "content", "error"),
    [
        (TarLimits(max_entries=3), [header("a/b"), header("a/c")], ""),
        (TarLimits(max_entries=3), [header("a/b"), header("a/c"), header("a/c")], "more than 3 entries"),
        (TarLimits(max_entries=3), [header("a/b/c/d")], "more than 3 entries"),
        (TarLimits(max_depth=3), [header("a/b/c")], ""),
        (TarLimits(max_depth=3), [header("a/b/c/d")], "in 4 folders"),
        (TarLimits(max_path_bytes=9), [header("a" * 9)], ""),
        (TarLimits(max_path_bytes=9), [header("a" * 10)], "a path of 10 bytes"),
        (TarLimits(max_header_bytes=12), [pax(c="x"), header("a")], ""),
        (TarLimits(max_header_bytes=12), [pax(comment="x" * 9), header("a")], "a header of 21 bytes"),
        (TarLimits(max_names_bytes=5), [header("a" * 5)], ""),
        (TarLimits(max_names_bytes=5), [header("a" * 5), header("b")], "more than 5 bytes of names"),
    ],
)
def test_each_bound_is_where_it_is_said_to_be(limits: TarLimits, content: list[bytes], error: str):
    stream = io.BytesIO(tar_of(*content))
    if not error:
        assert digest.of_tar(stream, limits)
        return
    with pytest.raises(Invalid, match=error):
        digest.of_tar(stream, limits)


def test_the_bounds_are_published():
    text = (Path(__file__).parents[2] / "docs/limits.md").read_text()
    limits = TarLimits()
    said = [
        f"| {limits.max_entries:,} |", f"| {limits.max_bytes >> 30} GiB |", f"| {limits.max_ratio} times |",
        f"more than {limits.ratio_from_bytes >> 20} MiB were", f"| {limits.max_header_bytes >> 20} MiB, 4 before",
        f"| {limits.max_names_bytes >> 20} MiB |", f"| {limits.max_path_bytes:,} bytes, {limits.max_depth} folders |",
        f"all but {UnpackLimits().min_free_bytes >> 30} GiB",
    ]  # fmt: skip
    assert [one for one in said if one not in text] == []
