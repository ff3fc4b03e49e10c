"""Content digests: blind to how contents were packed, and to nothing else."""

import contextlib
import gzip
import io
import os
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from periplus_common import digest
from periplus_common.errors import Invalid


def tar(
    files: dict[str, bytes], *, mode: int = 0o644, mtime: int = 0, links: dict[str, str] | None = None
) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mtime, member.mode = len(content), mtime, mode
            archive.addfile(member, io.BytesIO(content))
        for name, target in (links or {}).items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            archive.addfile(member)
    return buffer.getvalue()


def of_tar(content: bytes) -> str:
    return digest.of_tar(io.BytesIO(content))


FILES = {"out/a": b"a" * 2000, "out/b": b"b", "out/c/d": b""}


def test_order_times_compression_and_the_roots_name_do_not_count():
    same = {
        of_tar(tar(FILES)),
        of_tar(tar(dict(reversed(FILES.items())))),
        of_tar(tar(FILES, mtime=1_700_000_000)),
        of_tar(gzip.compress(tar(FILES), 9)),
        of_tar(tar({name.replace("out", "elsewhere", 1): content for name, content in FILES.items()})),
    }
    assert len(same) == 1


def test_contents_names_modes_and_links_count():
    found = [
        of_tar(tar(FILES)),
        of_tar(tar(FILES | {"out/a": b"a" * 1999 + b"b"})),
        of_tar(tar(FILES | {"out/e": b""})),
        of_tar(tar({name.replace("/b", "/x"): content for name, content in FILES.items()})),
        of_tar(tar(FILES, mode=0o755)),
        of_tar(tar(FILES, links={"out/l": "a"})),
        of_tar(tar(FILES, links={"out/l": "b"})),
    ]
    assert len(set(found)) == len(found)


def test_a_folder_on_disk_and_its_tar_are_the_same(tmp_path: Path):
    (tmp_path / "out" / "c").mkdir(parents=True)
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
        (tmp_path / name).chmod(0o644)
    (tmp_path / "out" / "l").symlink_to("a")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        archive.add(tmp_path / "out", "out")
    assert of_tar(buffer.getvalue()) == digest.of_path(tmp_path / "out")


def test_a_lone_file_is_its_bytes_however_it_is_called(tmp_path: Path):
    (tmp_path / "x").write_bytes(b"same")
    (tmp_path / "x").chmod(0o644)
    same = {
        digest.of_bytes(b"same"),
        digest.of_stream(io.BytesIO(b"same")),
        digest.of_path(tmp_path / "x"),
        of_tar(tar({"any": b"same"})),
    }
    assert len(same) == 1


@pytest.mark.parametrize("name", ["../x", "a/../../x", "a/.."])
def test_an_archive_that_leaves_its_root_is_refused(name: str):
    with pytest.raises(Invalid, match="leaves its root"):
        of_tar(tar({"a/b": b"", name: b""}))


def test_an_archive_that_is_broken_in_the_middle_is_no_shorter_archive():
    whole = tar({"a/1": b"1" * 512, "a/2": b"2" * 512, "a/3": b"3" * 512})
    for broken in (
        whole[:1024] + b"garbage!" * 64 + whole[1536:],  # the second header
        whole[: 1024 + 100],  # within it
        whole[: 1024 + 512 + 100],  # within the second content
    ):
        with pytest.raises(Invalid, match="not a readable tar"):
            of_tar(broken)


def test_what_unpacks_to_more_than_the_limit_is_refused():
    packed = gzip.compress(tar({"a": b"\0" * 10_000_000}))
    with pytest.raises(Invalid, match="more than 9000000 bytes"):
        digest.of_tar(io.BytesIO(packed), limit=9_000_000)


def test_a_device_file_is_refused():
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        member = tarfile.TarInfo("a/null")
        member.type, member.devmajor, member.devminor = tarfile.CHRTYPE, 1, 3
        archive.addfile(member)
    with pytest.raises(Invalid, match="no file, folder or link"):
        of_tar(buffer.getvalue())


@given(st.binary(max_size=3000), st.integers(0, 3071), st.booleans())
def test_whatever_the_bytes_are_there_is_a_digest_or_a_refusal(junk: bytes, at: int, packed: bool):
    whole = bytearray(tar({"a/1": b"1" * 512, "a/2": b"2"}))
    whole[at : at + len(junk)] = junk
    content = gzip.compress(bytes(whole), 1) if packed else bytes(whole)
    with contextlib.suppress(Invalid):
        assert of_tar(content).startswith("sha256:")


def test_names_that_are_no_text_count_as_bytes(tmp_path: Path):
    root = tmp_path / "root"
    root.mkdir()
    (root / os.fsdecode(b"\xff")).write_bytes(b"x")
    (root / "y").write_bytes(b"y")
    assert digest.of_path(root).startswith("sha256:")
