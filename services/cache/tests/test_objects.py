"""Objects on a real S3: what Argo puts there has one digest, however it was packed."""

import asyncio
import gzip
import io
import secrets
import tarfile
from types import SimpleNamespace

import pytest
from pydantic import SecretStr

from periplus_cache.contents import Contents, Read
from periplus_cache.domain import Place, Stat
from periplus_cache.objects import S3Objects
from periplus_cache.values import Unreadable
from periplus_common import blobs, digest
from periplus_common.errors import Invalid, NotFound
from periplus_local.stack.testing import Servers


@pytest.fixture
def store(embedded: Servers):
    s3 = embedded.s3
    opened = blobs.connect(
        SimpleNamespace(  # the part of the settings that is read
            s3_endpoint=s3.endpoint, s3_access_key=SecretStr(s3.access_key),
            s3_secret_key=SecretStr(s3.secret_key), s3_bucket=s3.bucket, s3_secure=False,
        )
    )  # fmt: skip
    yield opened
    opened.close()


@pytest.fixture
def put(store):
    async def write(content: bytes) -> Place:
        place = Place(f"objects-test/{secrets.token_hex(8)}")
        await store.put(blobs.Place(place.key), content)
        return place

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


async def test_tar_order_times_owners_and_gzip_levels_do_not_count(store, put):
    objects = S3Objects(store)
    files = {"out/a": b"a" * 200_000, "out/b": secrets.token_bytes(100_000)}
    packed = [
        tar(files),
        tar(dict(reversed(files.items()))),
        tar(files, level=1, mtime=1_700_000_000, owner=1000),
        tar(files, plain=True),
        tar({name.replace("out", "other"): content for name, content in files.items()}),
    ]
    found = {(await objects.digest(await put(content)))[1] for content in packed}
    assert len(found) == 1
    changed = files | {"out/a": b"b" + b"a" * 199_999}
    assert (await objects.digest(await put(tar(changed))))[1] not in found


async def test_a_lone_file_is_the_same_packed_and_plain(store, put):
    objects = S3Objects(store)
    content = secrets.token_bytes(70_000)
    places = [await put(content), await put(tar({"model": content}))]
    assert {(await objects.digest(place))[1] for place in places} == {digest.of_bytes(content)}


@pytest.mark.parametrize(
    "content",
    [b"", b"x", gzip.compress(b"no tar"), b"\x1f\x8b nonsense", b"\0" * 70_000, b"ustar" * 100],
    ids=["empty", "short", "gzip of no tar", "broken gzip", "zeros", "text"],
)
async def test_what_is_no_tar_is_its_bytes(store, put, content):
    seen, found = await S3Objects(store).digest(await put(content))
    assert found == digest.of_bytes(content)
    assert seen.size == len(content)


async def test_what_was_read_is_named_as_a_head_would_name_it(store, put):
    objects = S3Objects(store)
    for content in (b"x" * 100_000, tar({"a": b"x" * 100_000}), tar({"a": b"x"}, plain=True)):
        place = await put(content)
        seen, _ = await objects.digest(place)
        stat = (await objects.stat_many([place]))[place]
        assert (seen.etag, seen.size) == (stat.etag, stat.size)
        assert seen.place == Place(place.key, store.bucket, store.endpoint)
        assert stat.modified is not None


async def test_a_broken_tar_has_no_digest(store, put):
    whole = tar({"a": secrets.token_bytes(300_000)}, plain=True)
    with pytest.raises(Invalid):
        await S3Objects(store).digest(await put(whole[:200_000]))


async def test_what_is_not_there_or_lies_elsewhere_has_no_stat(store, put):
    objects = S3Objects(store)
    there, gone = await put(b"x"), Place("objects-test/gone")
    elsewhere = Place(there.key, endpoint="elsewhere.example:9000")
    found = await objects.stat_many([there, gone, elsewhere, Place("k", "no-such-bucket")])
    assert [stat is not None for stat in found.values()] == [True, False, False, False]
    with pytest.raises(NotFound):
        await objects.digest(gone)


async def test_contents_are_read_once_and_gone_ones_are_named(store, put, memory):
    contents = Contents(memory, S3Objects(store))
    one, other, broken, gone = (
        await put(b"1"), await put(b"2"), await put(tar({"a": b"x" * 9000}, plain=True)[:2000]), Place("objects-test/gone"),
    )  # fmt: skip
    asked = [one, other, broken, gone]
    found, again = await asyncio.gather(contents.of(asked), contents.of(asked))
    assert found == again
    assert [type(found[place]) for place in asked] == [Read, Read, Unreadable, Unreadable]
    assert found[one].digest == digest.of_bytes(b"1")
    assert len(memory.contents) == 2


@pytest.mark.parametrize("strangers", [0, 50, 200], ids="{} strangers".format)
@pytest.mark.parametrize("count", [5, 30])
async def test_what_changed_is_found_though_most_is_only_listed(store, count: int, strangers: int):
    objects = S3Objects(store)
    run = f"objects-test/{secrets.token_hex(8)}"
    places = [Place(f"{run}/pod-{i:03}/out.tgz") for i in range(count)]
    others = [Place(f"{run}/other-{i:03}/main.log") for i in range(strangers)]
    await asyncio.gather(*(store.put(blobs.Place(p.key), p.key.encode()) for p in places + others))
    held = {place: stat for place, stat in (await objects.stat_many(places)).items() if stat}
    assert len(held) == count
    assert await objects.changed(held) == {}

    gone, longer, other = places[0], places[2], places[4]
    store._client.remove_object(store.bucket, gone.key)
    await store.put(blobs.Place(longer.key), longer.key.encode() + b"!")
    await store.put(blobs.Place(other.key), b"!" + other.key.encode()[1:])
    found = await objects.changed(held)
    assert set(found) == {gone, longer, other}
    assert found[gone] is None
    assert found[longer].size == held[longer].size + 1
    assert (found[other].size, found[other].etag != held[other].etag) == (held[other].size, True)


async def test_what_lies_together_is_not_looked_at_one_by_one(store, monkeypatch):
    objects = S3Objects(store)
    run = f"objects-test/{secrets.token_hex(8)}"
    places = [Place(f"{run}/pod-{i:03}/out.tgz") for i in range(30)] + [Place(f"{run}-lone/a/b")]
    await asyncio.gather(*(store.put(blobs.Place(p.key), b"x") for p in places))
    held = {place: stat for place, stat in (await objects.stat_many(places)).items() if stat}
    looked: list[str] = []
    stat = store.stat

    async def counting(place):
        looked.append(place.key)
        return await stat(place)

    monkeypatch.setattr(store, "stat", counting)
    assert await objects.changed(held) == {}
    assert looked == [f"{run}-lone/a/b"]


async def test_objects_of_another_store_are_changed_and_no_failure(store):
    held = {Place(f"run/pod-{i}/x", endpoint="elsewhere.example:1"): Stat("e", 1) for i in range(20)}
    assert await S3Objects(store).changed(held) == dict.fromkeys(held)
