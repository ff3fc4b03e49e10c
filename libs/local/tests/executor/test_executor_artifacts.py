"""Artifacts: packed, stored, fetched and unpacked as Argo does it."""

# A test may block: nothing else runs in its loop.
# ruff: noqa: ASYNC240

import io
import tarfile
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from minio import Minio

from periplus_common.tar import TarLimits
from periplus_local.argo.executor.artifact_repository import S3Config
from periplus_local.argo.executor.job import Job
from periplus_local.argo.executor.process_executor import ProcessExecutor
from periplus_local.argo.executor.settings import ExecutorSettings, UnpackLimits

Sh = Callable[..., Job]


def out(name: str, path: str, **more: Any) -> dict[str, Any]:
    return {"artifacts": [{"name": name, "path": path, **more}]}


def put(s3: Minio, content: bytes) -> str:
    key = f"given/{uuid.uuid4().hex}"
    s3.put_object("artifacts", key, io.BytesIO(content), len(content))
    return key


def tar_of(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for entry, content in members:
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", mode: int = 0o644) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, link, mode
    return info


async def test_a_file_and_a_folder_are_passed_from_step_to_step(
    stored: ProcessExecutor, sh: Sh, s3: Minio
) -> None:
    outputs = {"artifacts": [{"name": "f", "path": "/tmp/f.txt"}, {"name": "d", "path": "/tmp/d"}]}
    line = "echo one > /tmp/f.txt; mkdir -p /tmp/d/sub; echo two > /tmp/d/sub/two.txt; chmod +x /tmp/f.txt"
    produced = await stored.run(job := sh(line, outputs=outputs))
    assert produced.artifacts == [
        {"name": "f", "path": "/tmp/f.txt", "s3": {"key": f"{job.key_prefix}/f.tgz"}},
        {"name": "d", "path": "/tmp/d", "s3": {"key": f"{job.key_prefix}/d.tgz"}},
    ]
    versions = {name: s3.stat_object("artifacts", f"{job.key_prefix}/{name}.tgz").etag for name in ("f", "d")}
    assert produced.written == versions
    with tarfile.open(
        fileobj=io.BytesIO(s3.get_object("artifacts", f"{job.key_prefix}/d.tgz").read())
    ) as tar:
        assert sorted(tar.getnames()) == ["d", "d/sub", "d/sub/two.txt"]
    given = [
        {**produced.artifacts[0], "path": "/in-of-pod/f.txt"},
        {**produced.artifacts[1], "path": "/in-of-pod/d"},
    ]
    line = "cat /in-of-pod/f.txt /in-of-pod/d/sub/two.txt; test -x /in-of-pod/f.txt"
    read = await stored.run(sh(line, inputs={"artifacts": given}, capture_result=True))
    assert (read.phase, read.result, read.read) == ("Succeeded", "one\ntwo", versions)


async def test_an_artifact_without_archive_is_stored_as_it_is(
    stored: ProcessExecutor, sh: Sh, s3: Minio
) -> None:
    none: dict[str, Any] = {"none": {}}
    outputs = {
        "artifacts": [
            {"name": "f", "path": "/tmp/f.txt", "archive": none},
            {"name": "d", "path": "/tmp/d", "archive": none},
        ]
    }
    line = "echo plain > /tmp/f.txt; mkdir -p /tmp/d/e; echo x > /tmp/d/e/x; echo y > /tmp/d/y"
    produced = await stored.run(job := sh(line, outputs=outputs))
    assert [a["s3"]["key"] for a in produced.artifacts] == [
        f"{job.key_prefix}/f.txt",
        f"{job.key_prefix}/d",
    ]
    assert produced.artifacts[0]["archive"] == none
    assert s3.get_object("artifacts", f"{job.key_prefix}/f.txt").read() == b"plain\n"
    given = [{**produced.artifacts[1], "path": "/in-of-pod"}]
    read = await stored.run(
        sh("cat /in-of-pod/e/x /in-of-pod/y", inputs={"artifacts": given}, capture_result=True)
    )
    assert read.result == "x\ny"


async def test_a_zip_is_passed_from_step_to_step(stored: ProcessExecutor, sh: Sh) -> None:
    outputs = out("d", "/tmp/d", archive={"zip": {}})
    produced = await stored.run(job := sh("mkdir /tmp/d; echo x > /tmp/d/x", outputs=outputs))
    assert produced.artifacts[0]["s3"]["key"] == f"{job.key_prefix}/d.zip"
    given = [{**produced.artifacts[0], "path": "/tmp/got"}]
    read = await stored.run(sh("cat /tmp/got/x", inputs={"artifacts": given}, capture_result=True))
    assert read.result == "x"


async def test_the_template_s_own_key_is_used(stored: ProcessExecutor, sh: Sh, s3: Minio) -> None:
    key = f"mine/{uuid.uuid4().hex}.tgz"
    produced = await stored.run(sh("echo x > /tmp/x", outputs=out("x", "/tmp/x", s3={"key": key})))
    assert produced.artifacts[0]["s3"]["key"] == key
    assert s3.stat_object("artifacts", key).size


async def test_raw_data_is_written_with_its_mode(stored: ProcessExecutor, sh: Sh) -> None:
    raw = {"name": "r", "path": "/tmp/r.sh", "mode": 0o755, "raw": {"data": "#!/bin/sh\necho é\n"}}
    done = await stored.run(sh("/tmp/r.sh", inputs={"artifacts": [raw]}, capture_result=True))
    assert done.result == "é"


async def test_a_missing_output_is_left_out_when_optional_and_else_an_error(
    stored: ProcessExecutor, sh: Sh
) -> None:
    done = await stored.run(sh("true", outputs=out("x", "/tmp/x", optional=True)))
    assert (done.phase, done.artifacts) == ("Succeeded", [])
    done = await stored.run(sh("true", outputs=out("x", "/tmp/x")))
    assert done.phase == "Error"
    assert "cannot save artifact /tmp/x: /tmp/x: no such file or directory" in done.message


async def test_a_missing_input_is_left_out_when_optional_and_else_an_error(
    stored: ProcessExecutor, sh: Sh
) -> None:
    given: dict[str, Any] = {"name": "model", "path": "/tmp/m", "s3": {"key": "no/such"}}
    done = await stored.run(sh("true", inputs={"artifacts": [given]}))
    assert (done.phase, done.exit_code) == ("Error", None)
    message = "init: Error (exit code 64): artifact model failed to load: The specified key does not exist"
    assert done.message.startswith(message)
    nowhere = {"name": "m", "path": "/tmp/m", "optional": True}
    done = await stored.run(sh("test ! -e /tmp/m", inputs={"artifacts": [nowhere]}))
    assert done.phase == "Succeeded"
    gone = {**given, "optional": True}
    done = await stored.run(sh("rmdir /tmp/m", inputs={"artifacts": [gone]}))  # as in a pod: an empty folder
    assert done.phase == "Succeeded"


async def test_an_input_in_a_folder_of_the_host_hides_the_hosts_file(
    stored: ProcessExecutor, sh: Sh, s3: Minio
) -> None:
    given = {"name": "h", "path": "/etc/hostname", "s3": {"key": put(s3, b"given")}}
    line = "cat /etc/hostname; test -e /etc/passwd"
    done = await stored.run(sh(line, inputs={"artifacts": [given]}, capture_result=True))
    assert (done.phase, done.result) == ("Succeeded", "given")
    assert Path("/etc/hostname").read_text() != "given"


async def test_an_object_that_is_no_archive_is_loaded_as_it_is(
    stored: ProcessExecutor, sh: Sh, s3: Minio
) -> None:
    given = {"name": "p", "path": "/tmp/p", "s3": {"key": put(s3, b"not a tar")}}
    done = await stored.run(sh("cat /tmp/p", inputs={"artifacts": [given]}, capture_result=True))
    assert done.result == "not a tar"


BAD = {
    "a name that climbs": [(entry("../evil"), b"x")],
    "an absolute name": [(entry("/tmp/evil"), b"x")],
    "a link that climbs": [(entry("l", tarfile.SYMTYPE, "../../evil"), b"")],
    "an absolute link": [(entry("l", tarfile.SYMTYPE, "/etc/passwd"), b"")],
    "a link through a link": [
        (entry("p", tarfile.DIRTYPE), b""),
        (entry("p/q", tarfile.DIRTYPE), b""),
        (entry("p/q/s", tarfile.SYMTYPE, "../.."), b""),
        (entry("p/q/s/l", tarfile.SYMTYPE, "../x"), b""),
        (entry("p/q/s/l/evil"), b"x"),
    ],
    "a link that goes down and then up": [
        (entry("a", tarfile.SYMTYPE, "."), b""),
        (entry("d", tarfile.DIRTYPE), b""),
        (entry("d/l", tarfile.SYMTYPE, "../a/../.."), b""),
    ],
    "a hard link out": [(entry("h", tarfile.LNKTYPE, "../../etc/passwd"), b"")],
    "a device": [(entry("null", tarfile.CHRTYPE), b"")],
    "a pipe": [(entry("pipe", tarfile.FIFOTYPE), b"")],
}


@pytest.mark.parametrize("what", BAD)
async def test_an_archive_with_an_entry_outside_of_its_folder_is_refused(
    store: S3Config, sh: Sh, s3: Minio, tmp_path: Path, what: str
) -> None:
    fillers = [(entry("filler"), b"x")]
    given = {"name": "bad", "path": "/tmp/in", "s3": {"key": put(s3, tar_of(*fillers, *BAD[what]))}}
    async with ProcessExecutor(tmp_path / "pods", store, ExecutorSettings(slots=1)) as executor:
        done = await executor.run(sh("true", inputs={"artifacts": [given]}))
    assert (done.phase, done.exit_code) == ("Error", None)
    assert done.message.startswith("init: Error (exit code 64): artifact bad failed to load: the archive")
    assert not list(tmp_path.rglob("evil"))


async def test_an_archive_that_unpacks_to_too_much_is_refused(
    store: S3Config, sh: Sh, s3: Minio, tmp_path: Path
) -> None:
    settings = ExecutorSettings(slots=1, unpack=UnpackLimits(tar=TarLimits(max_bytes=1_000_000)))
    content = tar_of((entry("a"), bytes(900_000)), (entry("b"), bytes(900_000)))
    given = {"name": "bomb", "path": "/tmp/in", "s3": {"key": put(s3, content)}}
    async with ProcessExecutor(tmp_path / "pods", store, settings) as executor:
        done = await executor.run(sh("true", inputs={"artifacts": [given]}))
    assert done.message.endswith("the archive unpacks to more than 1000000 bytes")


async def test_a_step_with_a_corrupt_archive_ends_in_error(
    store: S3Config, sh: Sh, s3: Minio, tmp_path: Path
) -> None:
    content = tar_of((entry("a"), bytes(range(256)) * 1000))
    given = {"name": "cut", "path": "/tmp/in", "s3": {"key": put(s3, content[: len(content) // 2])}}
    async with ProcessExecutor(tmp_path / "pods", store, ExecutorSettings(slots=1)) as executor:
        done = await executor.run(sh("true", inputs={"artifacts": [given]}))
    assert done.phase == "Error"
    assert done.message.startswith(
        "init: Error (exit code 64): artifact cut failed to load: not a readable tar"
    )


async def test_symbolic_links_within_an_artifact_are_kept(stored: ProcessExecutor, sh: Sh) -> None:
    line = "mkdir -p /tmp/d/e; echo x > /tmp/d/x; ln -s ../x /tmp/d/e/up; ln /tmp/d/x /tmp/d/hard"
    produced = await stored.run(sh(line, outputs=out("d", "/tmp/d")))
    given = [{**produced.artifacts[0], "path": "/tmp/d"}]
    read = await stored.run(
        sh("cat /tmp/d/e/up /tmp/d/hard", inputs={"artifacts": given}, capture_result=True)
    )
    assert read.result == "x\nx"


async def test_a_step_ends_in_error_when_the_repository_does_not_answer(
    executor: ProcessExecutor, sh: Sh
) -> None:
    done = await executor.run(sh("echo x > /tmp/x", outputs=out("x", "/tmp/x")))
    assert (done.phase, done.exit_code) == ("Error", 0)
    assert "cannot save artifact /tmp/x: the store at 127.0.0.1:9 fails" in done.message


async def test_an_artifact_at_another_endpoint_is_refused(stored: ProcessExecutor, sh: Sh) -> None:
    place = {"key": "k", "endpoint": "s3.amazonaws.com"}
    given = {"name": "x", "path": "/tmp/x", "s3": place}
    done = await stored.run(sh("true", inputs={"artifacts": [given]}))
    assert "s3.endpoint 's3.amazonaws.com' is not the store of this machine" in done.message
