import time
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import nats
import pytest

from periplus.snapshotter.v1 import snapshotter_pb2 as pb
from periplus.snapshotter.v1.events_pb2 import SnapshotTaken
from periplus.snapshotter.v1.snapshotter_pb2_grpc import SnapshotterServiceStub
from periplus_common import auth, blobs, rpc
from periplus_common.blobs import ObjectRef
from periplus_common.bus import asyncapi
from periplus_common.errors import Invalid, NotFound, Refused
from periplus_local.stack.testing import Servers
from periplus_snapshotter.app import app
from periplus_snapshotter.asyncapi import application
from periplus_snapshotter.settings import Settings
from periplus_snapshotter.snapshots.claim import Blob

LOCK = b'version = 1\nrequires-python = ">=3.11"\n[[package]]\nname = "numpy"\nversion = "2.1.0"\n'


@pytest.fixture
def settings(embedded: Servers, dsn: str) -> Settings:
    return Settings(
        postgres_dsn=dsn,
        nats_url=embedded.nats_url,
        grpc_address="127.0.0.1:0",
        token="token",
        s3_endpoint=embedded.s3.endpoint,
        s3_access_key=embedded.s3.access_key,
        s3_secret_key=embedded.s3.secret_key,
        s3_bucket=embedded.s3.bucket,
    )


@pytest.fixture
async def stub(settings: Settings) -> AsyncIterator[SnapshotterServiceStub]:
    async with app(settings) as port, rpc.channel(f"127.0.0.1:{port}", "token") as channel:
        yield SnapshotterServiceStub(channel)


@pytest.fixture
def request_() -> pb.TakeSnapshotRequest:
    """With content that no other test has, as all tests share the object store."""
    claim = pb.Claim(
        git=pb.GitState(commit="a" * 40, patch=b"patch %d" % time.time_ns()),
        lockfile=pb.Lockfile(name="uv.lock", content=LOCK),
        installed=[pb.Package(name="NumPy", version="2.0.0")],
        platform=pb.Platform(python_version="3.11.7"),
        code_archive=b"\x1f\x8bcode %d" % time.time_ns(),
    )
    for path in (b"new file.txt", "größe\n.txt".encode(), b"raw\xff"):
        claim.git.untracked.add(path=path, content=path, executable=path == b"new file.txt")
    claim.templates.add(name="WorkflowTemplate/train", content=b'{"spec": {}}')
    claim.omitted.add(path=b"model.bin", reason="20000000 bytes are too many")
    return pb.TakeSnapshotRequest(project="p", claim=claim)


async def test_a_claim_is_stored_in_postgres_and_s3_and_returned(stub, request_, settings: Settings) -> None:
    taken = await stub.TakeSnapshot(request_)
    assert (await stub.TakeSnapshot(request_)) == taken
    assert taken.warnings[1] == "installed packages differ from uv.lock: numpy 2.0.0 (locked 2.1.0)"
    found = await stub.GetSnapshot(
        pb.GetSnapshotRequest(project="p", snapshot=taken.snapshot, with_content=True)
    )
    snapshot = found.snapshot
    assert {f.path: (f.content, f.executable) for f in snapshot.claim.git.untracked} == {
        f.path: (f.content, f.executable) for f in request_.claim.git.untracked
    }
    assert snapshot.claim.git.patch == request_.claim.git.patch
    assert snapshot.claim.lockfile == request_.claim.lockfile
    assert snapshot.claim.templates == request_.claim.templates
    assert snapshot.claim.omitted == request_.claim.omitted
    assert [(p.name, p.version) for p in snapshot.locked] == [("numpy", "2.1.0")]
    assert set(snapshot.digests) == {
        "git.patch", "lockfile", "code", "untracked/new file.txt", "untracked/größe\\n.txt", "untracked/raw\\xff",
        "template/WorkflowTemplate/train",
    }  # fmt: skip
    assert snapshot.environment == taken.environment
    store = blobs.connect(settings)
    assert await store.get(ObjectRef(taken.code_key)) == request_.claim.code_archive
    store.close()


async def test_a_damaged_code_archive_is_written_again(stub, request_, settings: Settings) -> None:
    taken = await stub.TakeSnapshot(request_)
    store = blobs.connect(settings)
    await store.put(ObjectRef(taken.code_key), b"something else!")
    assert (await stub.TakeSnapshot(request_)) == taken
    assert await store.get(ObjectRef(taken.code_key)) == request_.claim.code_archive
    store.close()


async def test_damaged_content_is_not_returned(stub, request_, settings) -> None:
    taken = await stub.TakeSnapshot(request_)
    store = blobs.connect(settings)
    await store.put(ObjectRef(Blob.of(request_.claim.git.patch).key), b"something else!")
    store.close()
    request = pb.GetSnapshotRequest(project="p", snapshot=taken.snapshot, with_content=True)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.GetSnapshot(request)
    assert isinstance(rpc.from_status(caught.value), NotFound)


async def test_a_snapshot_that_exceeds_a_message_is_refused_with_content_and_returned_without(
    stub, request_
) -> None:
    content = b"%d" % time.time_ns()
    request_.claim.ClearField("code_archive")
    request_.claim.git.patch = b"p" * (8 << 20)
    request_.claim.lockfile.name = "requirements.txt"
    lines = [f"p{i}==1 --hash=sha256:{i:064x}\n" for i in range(20_000)]
    request_.claim.lockfile.content = "".join(lines).encode()
    for i in range(3):
        request_.claim.git.untracked.add(path=b"large-%d" % i, content=content + bytes([i]) * (7 << 20))
    taken = await stub.TakeSnapshot(request_, timeout=100)
    request = pb.GetSnapshotRequest(project="p", snapshot=taken.snapshot, with_content=True)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.GetSnapshot(request, timeout=100)
    error = rpc.from_status(caught.value)
    assert isinstance(error, Refused)
    assert (error.field, error.reason) == ("with_content", "SNAPSHOT_TOO_LARGE")
    assert "without content" in error.fix
    request.with_content = False
    snapshot = (await stub.GetSnapshot(request)).snapshot
    assert len(snapshot.locked) == 20_000


async def test_invalid_requests_are_refused_with_the_field(stub, request_) -> None:
    def changed(change) -> pb.TakeSnapshotRequest:
        other = pb.TakeSnapshotRequest()
        other.CopyFrom(request_)
        change(other)
        return other

    def set_(target, name, value):
        setattr(target, name, value)

    cases = [
        (lambda r: set_(r.claim.lockfile, "content", b"x = "), "claim.lockfile.content"),
        (lambda r: set_(r.claim.lockfile, "name", "poetry.lock"), "claim.lockfile.content"),
        (lambda r: set_(r.claim.lockfile, "name", "pixi.lock"), "claim.lockfile.name"),
        (lambda r: set_(r.claim.git, "commit", "main"), "claim.git.commit"),
        (lambda r: set_(r.claim.git, "remote", "https://a:b@code.example"), "claim.git.remote"),
        (lambda r: set_(r.claim.git.untracked[1], "path", b"../x"), "claim.git.untracked[1].path"),
        (lambda r: set_(r.claim.git, "patch", b"x" * (8 * 1024 * 1024 + 1)), "claim.git.patch"),
        (lambda r: set_(r.claim, "code_archive", b"PK"), "claim.code_archive"),
        (lambda r: set_(r.claim.templates[0], "name", "Pod/x"), "claim.templates[0].name"),
        (lambda r: r.claim.templates.add(name="WorkflowTemplate/train"), "claim.templates[1].name"),
        (lambda r: r.claim.omitted.add(path=b"x", reason="\x1b[2J"), "claim.omitted[1].reason"),
        (lambda r: r.claim.omitted.add(path=b"model.bin", reason="a"), "claim.omitted[1].path"),
        (lambda r: r.ClearField("claim"), "claim"),
        (lambda r: set_(r, "project", "No Project"), "project"),
    ]
    for change, field in cases:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.TakeSnapshot(changed(change))
        error = rpc.from_status(caught.value)
        assert isinstance(error, Invalid), field
        assert error.field == field


async def test_two_snapshots_are_compared_and_a_missing_one_is_not_found(stub, request_) -> None:
    old = await stub.TakeSnapshot(request_)
    request_.claim.platform.python_version = "3.12.0"
    new = await stub.TakeSnapshot(request_)
    request = pb.DiffSnapshotsRequest(project="p", old=old.snapshot, new=new.snapshot)
    answer = await stub.DiffSnapshots(request)
    assert [(c.field, c.old, c.new) for c in answer.changes] == [("python", "3.11.7", "3.12.0")]
    request.new = "sha256:" + "0" * 64
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.DiffSnapshots(request)
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


async def test_a_new_snapshot_is_published_on_nats(stub, request_, embedded: Servers) -> None:
    request_.project = "published"
    connection = await nats.connect(embedded.nats_url)
    try:
        stream = connection.jetstream()
        subscription = await stream.subscribe(
            "periplus.snapshotter.v1.SnapshotTaken.published.-", ordered_consumer=True
        )
        taken = await stub.TakeSnapshot(request_)
        message = await subscription.next_msg(timeout=60)
    finally:
        await connection.close()
    assert SnapshotTaken.FromString(message.data).snapshot == taken.snapshot
    assert message.headers["ce-type"] == "periplus.snapshotter.v1.SnapshotTaken"


def test_the_asyncapi_document_is_current() -> None:
    path = Path(__file__).parents[3] / "docs" / "asyncapi" / "snapshotter.json"
    asyncapi.assert_current(application(), path)


def test_every_rpc_declares_its_permission() -> None:
    permissions = auth.permissions(pb.DESCRIPTOR.services_by_name["SnapshotterService"])
    assert permissions == {
        "TakeSnapshot": "snapshots.take",
        "GetSnapshot": "snapshots.read",
        "DiffSnapshots": "snapshots.read",
        "ResolveImages": "images.resolve",
        "CheckImages": "images.read",
        "ReadImage": "images.read",
        "FindPackage": "snapshots.read",
    }


async def test_images_that_can_not_be_resolved_have_a_reason_each(stub) -> None:
    images = ["registry.invalid/a:1", "Not An Image", "127.0.0.1:1/a"]
    found = (await stub.ResolveImages(pb.ResolveImagesRequest(project="p", images=images))).images
    assert [each.image for each in found] == images
    assert [each.digest for each in found] == ["", "", ""]
    assert found[0].reason == "the registry registry.invalid is none of those that may be asked"
    assert "SNAPSHOTTER_REGISTRIES" in found[0].fix
    assert "is no name of an image" in found[1].reason


async def test_more_images_than_a_call_may_have_are_refused(stub) -> None:
    for images in (["a"] * 1001, [""], ["a" * 513]):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.ResolveImages(pb.ResolveImagesRequest(project="p", images=images))
        assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
