"""Objects on a real S3: versions, and content digests that do not depend on how Argo packed the content."""

import asyncio
import gzip
import io
import secrets
import tarfile
from types import SimpleNamespace

import pytest
from pydantic import SecretStr

from periplus_cache.content import Content, ContentReader, Unreadable
from periplus_cache.domain import ObjectVersion
from periplus_cache.objects import S3ObjectStore
from periplus_common import blobs, digest
from periplus_common.errors import Invalid, NotFound
from periplus_local.stack.testing import Servers
from periplus_model.steps import ObjectRef


@pytest.fixture
def store(embedded: Servers):
    s3 = embedded.s3
    opened = blobs.connect(
        SimpleNamespace(  # the settings that are used
            s3_endpoint=s3.endpoint, s3_access_key=SecretStr(s3.access_key),
            s3_secret_key=SecretStr(s3.secret_key), s3_bucket=s3.bucket, s3_secure=False, s3_ca_file="",
        )
    )  # fmt: skip
    yield opened
    opened.close()


@pytest.fixture
def put(store):
    async def write(content: bytes) -> ObjectRef:
        ref = ObjectRef(f"objects-test/{secrets.token_hex(8)}")
        await store.put(blobs.ObjectRef(ref.key), content)
        return ref

    return write


def tar(
    files: dict[str, bytes], *, level: int = 6, mtime: int = 0, owner: int = 0, plain: bool = False
) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mtime, member.uid = len(content), mtime, owner
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue() if plain else gzip.compress(buffer.getvalue(), level, mtime=mtime)


async def test_tar_order_times_owners_and_gzip_levels_do_not_change_the_digest(store, put):
    objects = S3ObjectStore(store)
    files = {"out/a": b"a" * 200_000, "out/b": secrets.token_bytes(100_000)}
    packed = [
        tar(files),
        tar(dict(reversed(files.items()))),
        tar(files, level=1, mtime=1_700_000_000, owner=1000),
        tar(files, plain=True),
        tar({name.replace("out", "other"): content for name, content in files.items()}),
    ]
    found = {(await objects.read_digest(await put(content)))[1] for content in packed}
    assert len(found) == 1
    changed = files | {"out/a": b"b" + b"a" * 199_999}
    assert (await objects.read_digest(await put(tar(changed))))[1] not in found


async def test_a_single_file_has_one_digest_packed_or_plain(store, put):
    objects = S3ObjectStore(store)
    content = secrets.token_bytes(70_000)
    refs = [await put(content), await put(tar({"model": content}))]
    assert {(await objects.read_digest(ref))[1] for ref in refs} == {digest.of_bytes(content)}


@pytest.mark.parametrize(
    "content",
    [b"", b"x", gzip.compress(b"no tar"), b"\x1f\x8b nonsense", b"\0" * 70_000, b"ustar" * 100],
    ids=["empty", "short", "gzip of no tar", "broken gzip", "zeros", "text"],
)
async def test_the_digest_of_a_content_that_is_no_tar_is_that_of_its_bytes(store, put, content):
    found_object, found = await S3ObjectStore(store).read_digest(await put(content))
    assert found == digest.of_bytes(content)
    assert found_object.version.size_bytes == len(content)


async def test_the_version_that_was_read_is_that_of_a_head_request(store, put):
    objects = S3ObjectStore(store)
    for content in (b"x" * 100_000, tar({"a": b"x" * 100_000}), tar({"a": b"x"}, plain=True)):
        ref = await put(content)
        found_object, _ = await objects.read_digest(ref)
        version = (await objects.versions([ref]))[ref]
        assert found_object.version == version
        assert found_object.object == ObjectRef(ref.key, store.bucket, store.endpoint)
        assert version.modified_at is not None


async def test_a_broken_tar_has_no_digest(store, put):
    whole = tar({"a": secrets.token_bytes(300_000)}, plain=True)
    with pytest.raises(Invalid):
        await S3ObjectStore(store).read_digest(await put(whole[:200_000]))


async def test_missing_objects_and_those_of_other_stores_have_no_version(store, put):
    objects = S3ObjectStore(store)
    there, gone = await put(b"x"), ObjectRef("objects-test/gone")
    elsewhere = ObjectRef(there.key, endpoint="elsewhere.example:9000")
    found = await objects.versions([there, gone, elsewhere, ObjectRef("k", "no-such-bucket")])
    assert [stat is not None for stat in found.values()] == [True, False, False, False]
    with pytest.raises(NotFound):
        await objects.read_digest(gone)


async def test_contents_are_read_once_and_missing_objects_are_unreadable(store, put, memory):
    contents = ContentReader(memory, S3ObjectStore(store))
    one, other, broken, gone = (
        await put(b"1"), await put(b"2"), await put(tar({"a": b"x" * 9000}, plain=True)[:2000]), ObjectRef("objects-test/gone"),
    )  # fmt: skip
    wanted = [one, other, broken, gone]
    found, again = await asyncio.gather(contents.read("p", wanted), contents.read("p", wanted))
    assert found == again
    assert [type(found[ref]) for ref in wanted] == [Content, Content, Unreadable, Unreadable]
    assert found[one].digest == digest.of_bytes(b"1")
    assert len(memory.contents) == 2


@pytest.mark.parametrize("others_count", [0, 50, 200], ids="{} other objects".format)
@pytest.mark.parametrize("count", [5, 30])
async def test_changed_objects_are_found_although_most_are_only_listed(store, count: int, others_count: int):
    objects = S3ObjectStore(store)
    run = f"objects-test/{secrets.token_hex(8)}"
    refs = [ObjectRef(f"{run}/pod-{i:03}/out.tgz") for i in range(count)]
    others = [ObjectRef(f"{run}/other-{i:03}/main.log") for i in range(others_count)]
    await asyncio.gather(*(store.put(blobs.ObjectRef(p.key), p.key.encode()) for p in refs + others))
    expected = {ref: version for ref, version in (await objects.versions(refs)).items() if version}
    assert len(expected) == count
    assert await objects.changed(expected) == {}

    gone, longer, other = refs[0], refs[2], refs[4]
    store._client.remove_object(store.bucket, gone.key)
    await store.put(blobs.ObjectRef(longer.key), longer.key.encode() + b"!")
    await store.put(blobs.ObjectRef(other.key), b"!" + other.key.encode()[1:])
    found = await objects.changed(expected)
    assert set(found) == {gone, longer, other}
    assert found[gone] is None
    assert found[longer].size_bytes == expected[longer].size_bytes + 1
    assert (found[other].size_bytes, found[other].etag != expected[other].etag) == (
        expected[other].size_bytes,
        True,
    )


async def test_objects_of_one_folder_need_no_request_each(store, monkeypatch):
    objects = S3ObjectStore(store)
    run = f"objects-test/{secrets.token_hex(8)}"
    refs = [ObjectRef(f"{run}/pod-{i:03}/out.tgz") for i in range(30)] + [ObjectRef(f"{run}-lone/a/b")]
    await asyncio.gather(*(store.put(blobs.ObjectRef(p.key), b"x") for p in refs))
    expected = {ref: version for ref, version in (await objects.versions(refs)).items() if version}
    requested: list[str] = []
    stat = store.stat

    async def counting(ref):
        requested.append(ref.key)
        return await stat(ref)

    monkeypatch.setattr(store, "stat", counting)
    assert await objects.changed(expected) == {}
    assert requested == [f"{run}-lone/a/b"]


async def test_objects_of_another_store_count_as_changed(store):
    expected = {
        ObjectRef(f"run/pod-{i}/x", endpoint="elsewhere.example:1"): ObjectVersion("e", 1) for i in range(20)
    }
    assert await S3ObjectStore(store).changed(expected) == dict.fromkeys(expected)
