"""The packages of an image, by the files that package managers leave in its layers."""

import gzip
import io
import subprocess
import sys
import tarfile

import pytest

from periplus_common.errors import Invalid
from periplus_snapshotter.layers.layer import Layer, packages_of, read_layer

METADATA = b"Metadata-Version: 2.1\nName: %s\nVersion: %s\n\nName: not-this\n"
STATUS = b"""Package: openssl
Status: install ok installed
Version: 3.0.11-1
Description: a
 Package: not-this

Package: gone
Status: deinstall ok config-files
Version: 1

"""


def layer(files: dict[str, bytes], *, special: bool = False) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        if special:
            for kind in (tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE):
                member = tarfile.TarInfo(f"dev/{kind!r}")
                member.type = kind
                archive.addfile(member)
    return packed.getvalue()


def packages(*layers: dict[str, bytes]) -> dict[str, str]:
    return dict(packages_of(read_layer(io.BytesIO(layer(files))) for files in layers))


PYTHON = "usr/lib/python3.11/site-packages/{}.dist-info/METADATA"


def test_each_package_manager_is_read():
    found = packages(
        {
            PYTHON.format("LangChain-0.3.1"): METADATA % (b"Lang_Chain", b"0.3.1"),
            "usr/lib/python3/dist-packages/six.egg-info": METADATA % (b"six", b"1.16"),
            "usr/lib/python3/dist-packages/old.egg-info/PKG-INFO": METADATA % (b"old", b"2"),
            "opt/conda/conda-meta/scikit-learn-1.5.0-py311h_0.json": b"{}",
            "opt/conda/conda-meta/history": b"",
            "var/lib/dpkg/status": STATUS,
            "var/lib/dpkg/status.d/tzdata": b"Package: tzdata\nVersion: 2024a\n",
            "lib/apk/db/installed": b"P:musl\nV:1.2.4\n\nP:busybox\nV:1.36\n",
        }
    )
    assert found == {
        "lang-chain": "0.3.1", "six": "1.16", "old": "2", "conda/scikit-learn": "1.5.0", "deb/openssl": "3.0.11-1",
        "deb/tzdata": "2024a", "apk/musl": "1.2.4", "apk/busybox": "1.36",
    }  # fmt: skip


def test_a_layer_hides_what_it_removes_and_replaces():
    old, new = PYTHON.format("a-1"), PYTHON.format("a-2")
    base = {
        old: METADATA % (b"a", b"1"),
        "opt/conda/conda-meta/b-1-0.json": b"",
        "var/lib/dpkg/status": STATUS,
    }
    folder = old.rpartition("/")[0]
    upgraded = {f"{folder.rpartition('/')[0]}/.wh.a-1.dist-info": b"", new: METADATA % (b"a", b"2")}
    assert packages(base, upgraded) == {"a": "2", "conda/b": "1", "deb/openssl": "3.0.11-1"}
    assert packages(base, {"opt/conda/.wh..wh..opq": b"", "opt/conda/conda-meta/c-3-0.json": b""}) == {
        "a": "1", "conda/c": "3", "deb/openssl": "3.0.11-1",
    }  # fmt: skip
    assert packages(base, {"var/lib/dpkg/status": b""}) == {"a": "1", "conda/b": "1"}
    assert packages(base, {".wh.usr": b"", ".wh.opt": b""}) == {"deb/openssl": "3.0.11-1"}
    assert packages(base, {"usr/.wh.li": b""}) == packages(base)


def test_a_layer_may_be_packed_and_have_devices():
    content = layer({PYTHON.format("a-1"): METADATA % (b"a", b"1")}, special=True)
    for packed in (content, gzip.compress(content)):
        assert packages_of([read_layer(io.BytesIO(packed))]) == [("a", "1")]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"\x28\xb5\x2f\xfd" + b"x" * 100, "zstd"),
        (b"no tar" * 200, "not a readable tar"),
        (layer({"../../etc/passwd": b""}), "leaves its root"),
        (layer({"var/lib/dpkg/status": bytes((16 << 20) + 1)}), "at most 16777216 are read"),
        (layer({"var/lib/dpkg/status": b"Package: a\nVersion: 1\n"})[:700], "cut off"),
    ],
)
def test_a_layer_that_is_none_is_refused(content: bytes, problem: str):
    with pytest.raises(Invalid, match=problem):
        read_layer(io.BytesIO(content))


def test_records_that_say_nothing_useful_give_no_package():
    assert packages(
        {
            PYTHON.format("a"): b"\xff\xfe\x00 Name",
            PYTHON.format("b"): METADATA % (b"b\x1b[31m", b"1"),
            PYTHON.format("c"): METADATA % (b"c" * 300, b"1"),
            "opt/conda/conda-meta/nothyphens.json": b"",
            "var/lib/dpkg/status": b"\n\n\n::\nPackage\n",
            "lib/apk/db/installed": b"V:1\n",
        }
    ) == {}  # fmt: skip


def test_packages_of_no_layers_are_none():
    assert packages_of([]) == packages_of([Layer()]) == []


def test_the_process_reads_a_layer_from_its_input_and_gets_no_environment():
    command = [sys.executable, "-I", "-m", "periplus_snapshotter.layers"]
    content = gzip.compress(layer({PYTHON.format("a-1"): METADATA % (b"a", b"1")})) + b"\0" * 4096
    done = subprocess.run(command, input=content, capture_output=True, env={}, check=True)
    assert b'"a", "1"' in done.stdout
    assert (
        b"invalid"
        in subprocess.run(command, input=b"x" * 600, capture_output=True, env={}, check=True).stdout
    )
