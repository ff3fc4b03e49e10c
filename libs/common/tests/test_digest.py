"""Digests: equal for equal contents however they were packed, and different for different ones."""

import contextlib
import gzip
import hashlib
import io
import os
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from periplus_common import digest
from periplus_common.errors import Invalid
from periplus_common.tar import TarLimits


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


def of_path(root: Path) -> str:
    """The digest of a file, folder or link on disk."""

    def entry(path: Path, name: str) -> digest.Entry:
        if path.is_symlink():
            return digest.Entry(name, "link", content=str(path.readlink()))
        if path.is_dir():
            return digest.Entry(name, "dir")
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        return digest.Entry(name, "file", bool(path.stat().st_mode & 0o100), content)

    if root.is_symlink() or not root.is_dir():
        return digest.of_entries([entry(root, "")])
    return digest.of_entries(entry(path, path.relative_to(root).as_posix()) for path in root.rglob("*"))


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
    assert of_tar(buffer.getvalue()) == of_path(tmp_path / "out")


def test_an_artifact_of_one_file_has_the_digest_of_its_bytes_whatever_its_name(tmp_path: Path):
    (tmp_path / "x").write_bytes(b"same")
    (tmp_path / "x").chmod(0o644)
    same = {
        digest.of_bytes(b"same"),
        digest.of_stream(io.BytesIO(b"same")),
        of_path(tmp_path / "x"),
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


def test_an_archive_that_unpacks_to_more_than_the_limit_is_refused():
    packed = gzip.compress(tar({"a": b"\0" * 10_000_000}))
    with pytest.raises(Invalid, match="more than 9000000 bytes"):
        digest.of_tar(io.BytesIO(packed), TarLimits(max_bytes=9_000_000))


def test_a_device_file_is_refused():
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        member = tarfile.TarInfo("a/null")
        member.type, member.devmajor, member.devminor = tarfile.CHRTYPE, 1, 3
        archive.addfile(member)
    with pytest.raises(Invalid, match="no file, folder or link"):
        of_tar(buffer.getvalue())


@given(st.binary(max_size=3000), st.integers(0, 3071), st.booleans())
def test_any_bytes_have_a_digest_or_are_invalid(junk: bytes, at: int, packed: bool):
    whole = bytearray(tar({"a/1": b"1" * 512, "a/2": b"2"}))
    whole[at : at + len(junk)] = junk
    content = gzip.compress(bytes(whole), 1) if packed else bytes(whole)
    with contextlib.suppress(Invalid):
        assert of_tar(content).startswith("sha256:")


def test_names_that_are_not_unicode_count_as_bytes(tmp_path: Path):
    root = tmp_path / "root"
    root.mkdir()
    (root / os.fsdecode(b"\xff")).write_bytes(b"x")
    (root / "y").write_bytes(b"y")
    assert of_path(root).startswith("sha256:")


def packed(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for member, content in members:
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def named(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text(), VALUES, max_size=6), st.randoms())
def test_the_canonical_form_does_not_depend_on_the_order_of_members(value: dict[str, object], chance):
    members = list(value.items())
    chance.shuffle(members)
    assert digest.canonical(dict(members)) == digest.canonical(value)


def _typed(value: object) -> object:
    if isinstance(value, dict):
        return ("d", frozenset((key, _typed(inner)) for key, inner in value.items()))
    if isinstance(value, list):
        return ("l", tuple(map(_typed, value)))
    return (type(value).__name__, repr(value))


@given(VALUES, VALUES)
def test_digests_of_values_are_equal_exactly_when_the_values_and_their_types_are(one: object, other: object):
    assert (digest.of(one) == digest.of(other)) == (_typed(one) == _typed(other))


def test_values_that_are_equal_in_python_but_of_other_types_differ():
    values = [1, 1.0, "1", True, b"1", [1], {"1": 1}, 0, 0.0, -0.0, False, None, "", b"", [], {}]
    assert len({digest.of(value) for value in values}) == len(values)
    assert digest.of([1]) != digest.of([True])


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), object(), "\udc80"])
@pytest.mark.parametrize("around", [lambda x: x, lambda x: {"a": [x]}, lambda x: {x: 1}, lambda x: (x,)])
def test_a_value_without_a_canonical_form_is_invalid(bad: object, around):
    with pytest.raises(Invalid, match="canonical"):
        digest.canonical(around(bad))


def test_a_value_that_is_nested_too_deep_or_contains_itself_is_invalid():
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(Invalid, match="canonical"):
        digest.canonical(deep)
    itself: list[object] = []
    itself += [itself, itself]
    with pytest.raises(Invalid, match="canonical"):
        digest.canonical(itself)


def test_a_file_an_empty_folder_a_folder_of_one_file_and_a_link_differ():
    found = [
        of_tar(packed((named("x"), b""))),
        of_tar(packed((named("x", tarfile.DIRTYPE), b""))),
        of_tar(packed((named("x", tarfile.DIRTYPE), b""), (named("x/x"), b""))),
        of_tar(packed((named("x", tarfile.SYMTYPE, "a"), b""))),
        of_tar(packed((named("x", tarfile.SYMTYPE, "b"), b""))),
    ]
    assert len(set(found)) == len(found)


def test_an_empty_folder_counts_and_a_folder_that_is_not_listed_does_too():
    one = (named("out/a/b"), b"x")
    folders = [(named(name, tarfile.DIRTYPE), b"") for name in ("out", "out/a")]
    assert of_tar(packed(one)) == of_tar(packed(*folders, one)) == of_tar(packed(one, *folders))
    assert of_tar(packed(one, (named("out/c", tarfile.DIRTYPE), b""))) != of_tar(packed(one))


def test_a_link_on_disk_is_its_target_path_and_not_the_target(tmp_path: Path):
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "folder").mkdir()
    for target in ("file", "folder", "nowhere"):
        (tmp_path / "link").symlink_to(target)
        assert of_path(tmp_path / "link") == of_tar(packed((named("l", tarfile.SYMTYPE, target), b"")))
        (tmp_path / "link").unlink()


def test_a_hard_link_is_its_file():
    twice = packed((named("out/a"), b"x"), (named("out/b", tarfile.LNKTYPE, "out/a"), b""))
    assert of_tar(twice) == of_tar(tar({"out/a": b"x", "out/b": b"x"}))
    for target in ("out/c", "../../etc/passwd", "/etc/passwd", "out"):
        with pytest.raises(Invalid, match="hard link to no file"):
            of_tar(packed((named("out/a"), b"x"), (named("out/b", tarfile.LNKTYPE, target), b"")))


def test_of_two_members_with_one_name_the_later_counts():
    assert of_tar(
        packed((named("out/a"), b"old"), (named("out/b"), b""), (named("out/a"), b"new"))
    ) == of_tar(tar({"out/a": b"new", "out/b": b""}))


@pytest.mark.parametrize("name", ["/etc/passwd", "//x", "/"])
def test_an_absolute_name_is_refused(name: str):
    with pytest.raises(Invalid, match="leaves its root"):
        of_tar(packed((named("a/b"), b""), (named(name), b"")))


@pytest.mark.parametrize("above", [tarfile.SYMTYPE, tarfile.REGTYPE])
def test_a_member_below_a_link_or_a_file_is_invalid(above: bytes):
    with pytest.raises(Invalid, match="which is no folder"):
        of_tar(packed((named("a/b", above, "/etc"), b""), (named("a/b/c/d"), b"")))
    with pytest.raises(Invalid, match="which is no folder"):
        of_tar(packed((named("a", above, "/etc"), b""), (named("a/b"), b"")))


@pytest.mark.parametrize("squeeze", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_an_archive_that_is_cut_off_anywhere_is_refused(squeeze):
    whole = tar({f"a/{i}": bytes([i]) * 600 for i in range(4)})
    end = 4 * (512 + 1024)
    for length in [*range(0, end, 512), *range(1, end, 501)]:
        with pytest.raises(Invalid, match="not a readable tar"):
            of_tar(squeeze(whole[:length]))
    content = gzip.compress(whole)
    for length in range(0, len(content) - 60, 7):
        with pytest.raises(Invalid):
            of_tar(content[:length])


def test_a_header_that_would_fill_the_memory_is_refused():
    member = named("././@LongLink", tarfile.GNUTYPE_LONGNAME)
    member.size = 1 << 40
    with pytest.raises(Invalid, match="header of"):
        of_tar(member.tobuf(tarfile.GNU_FORMAT) + b"x" * 10_000)


def test_headers_without_end_are_refused():
    header = named("././@PaxHeader", tarfile.XHDTYPE)
    header.size = 512
    endless = (header.tobuf(tarfile.USTAR_FORMAT) + b"9 a=b\n".ljust(512, b"\0")) * 3000
    with pytest.raises(Invalid, match="not a readable tar"):
        of_tar(endless)


@pytest.mark.parametrize("said", ["size=abc", "size=-5", "GNU.sparse.size=x", "GNU.sparse.map=1,2,x"])
def test_a_header_with_invalid_fields_is_invalid_or_ignored(said: str):
    record = f" {said}\n"
    body = f"{len(record) + 2}{record}".encode()
    header = named("././@PaxHeader", tarfile.XHDTYPE)
    header.size = len(body)
    with contextlib.suppress(Invalid):
        of_tar(header.tobuf(tarfile.USTAR_FORMAT) + body.ljust(512, b"\0") + tar({"a": b"x"}))


def test_an_archive_of_very_many_entries_is_refused():
    def of_entries(count: int) -> str:
        return digest.of_tar(
            io.BytesIO(tar({f"a/{i}": b"" for i in range(count)})), TarLimits(max_entries=51)
        )

    assert of_entries(50)
    with pytest.raises(Invalid, match="more than 51 entries"):
        of_entries(51)


def test_an_error_of_the_stream_passes_through():
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() > 2000:
                raise ConnectionResetError("gone")
            return super().read(min(size or 0, 700))

    with pytest.raises(ConnectionResetError):
        digest.of_tar(Broken(tar({"a/1": b"1" * 9000})))


class Endless(io.RawIOBase):
    """A stream that is longer than what memory there is for it, and that knows its largest read."""

    def __init__(self, head: bytes, size: int, tail: bytes) -> None:
        self.left, self.head, self.tail, self.most = size, head, tail, 0

    def read(self, size: int = -1) -> bytes:
        assert size > 0
        self.most = max(self.most, size)
        if self.head:
            given, self.head = self.head[:size], self.head[size:]
        elif self.left:
            given = bytes(min(size, self.left))
            self.left -= len(given)
        else:
            given, self.tail = self.tail[:size], self.tail[size:]
        return given


def test_large_files_are_read_in_chunks():
    size = 64 << 20
    member = named("a")
    member.size = size
    streams = [Endless(b"", size, b""), Endless(member.tobuf(), size, bytes(1024))]
    assert digest.of_stream(streams[0]) == digest.of_tar(streams[1])
    assert max(stream.most for stream in streams) <= digest.CHUNK_BYTES
