"""The client of the object store on a real S3: concurrent writers, missing objects, and servers that fail."""

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator
from typing import IO

import pytest

from periplus_common import blobs
from periplus_common.blobs import Blobs, ObjectRef
from periplus_common.errors import Invalid, NotFound, Unavailable
from periplus_common.settings import ObjectStoreSettings
from periplus_local.stack.testing import Servers


def connected(embedded: Servers, endpoint: str, secret: str = "") -> Blobs:
    return blobs.connect(
        ObjectStoreSettings(
            postgres_dsn="-", nats_url="-", grpc_address="-", token="-",
            s3_endpoint=endpoint, s3_access_key=embedded.s3.access_key, s3_secret_key=secret or embedded.s3.secret_key,
            s3_bucket=embedded.s3.bucket,
        )
    )  # fmt: skip


@pytest.fixture
async def store(embedded: Servers) -> AsyncIterator[Blobs]:
    opened = connected(embedded, embedded.s3.endpoint)
    yield opened
    opened.close()


@pytest.fixture
def key() -> str:
    return f"test/{secrets.token_hex(8)} ü+%"


async def test_exactly_one_of_many_writers_wins(store: Blobs, key: str):
    won = await asyncio.gather(*(store.put_new(ObjectRef(key), b"%d" % i) for i in range(16)))
    assert won.count(True) == 1
    assert await store.get(ObjectRef(key)) == b"%d" % won.index(True)


async def test_the_last_content_is_read(store: Blobs, key: str):
    for content in (b"", b"one", b"two" * 100_000):
        await store.put(ObjectRef(key), content)
        assert await store.get(ObjectRef(key)) == content
        stat = await store.stat(ObjectRef(key))
        assert stat
        assert stat.size == len(content)
        assert '"' not in stat.etag


async def test_a_deleted_object_is_not_found_and_may_be_deleted_again(store: Blobs, key: str):
    await store.put(ObjectRef(key), b"x")
    for _ in range(2):
        await store.delete(ObjectRef(key))
        assert await store.stat(ObjectRef(key)) is None


async def test_many_objects_are_looked_up_at_once(store: Blobs, key: str):
    existing = [ObjectRef(f"{key}/{i}") for i in range(20)]
    await asyncio.gather(*(store.put(ref, b"x") for ref in existing))
    missing = [ObjectRef(f"{key}/{i}") for i in range(20, 25)] + [ObjectRef("x", "no-such-bucket")]
    found = await store.stat_many([*existing, *missing, existing[0]])
    assert list(found) == [*existing, *missing]
    assert [ref for ref, stat in found.items() if stat is None] == missing


async def test_a_missing_object_is_not_found(store: Blobs, key: str):
    for ref in (ObjectRef(key), ObjectRef(key, "no-such-bucket")):
        assert await store.stat(ref) is None
        with pytest.raises(NotFound):
            await store.get(ref)


async def test_an_object_above_the_limit_is_invalid(store: Blobs, key: str):
    await store.put(ObjectRef(key), b"12345")
    assert await store.get(ObjectRef(key), limit=5) == b"12345"
    with pytest.raises(Invalid, match="larger than 4 bytes"):
        await store.get(ObjectRef(key), limit=4)


async def test_another_object_store_is_not_found(store: Blobs, key: str):
    await store.put(ObjectRef(key), b"ours")
    elsewhere = ObjectRef(key, endpoint="s3.example.com")
    for use in (store.stat, store.get, lambda p: store.put(p, b"x"), lambda p: store.put_new(p, b"x")):
        with pytest.raises(NotFound, match="no credentials"):
            await use(elsewhere)
    assert await store.get(ObjectRef(key, endpoint=store.endpoint)) == b"ours"


@pytest.mark.parametrize(
    "ref",
    [
        ObjectRef(""),
        ObjectRef("k", "UPPER"),
        ObjectRef("k", "a"),
        ObjectRef("k", "../up"),
        ObjectRef("x" * 1025),
    ],
    ids=str,
)
async def test_an_impossible_bucket_or_key_is_invalid(store: Blobs, ref: ObjectRef):
    for use in (store.stat, store.get, lambda p: store.put(p, b"x"), lambda p: store.put_new(p, b"x")):
        with pytest.raises(Invalid):
            await use(ref)


async def test_a_store_that_is_down_is_unavailable_and_used_again_when_it_is_up(
    embedded: Servers, gates, key: str
):
    gate, through = await gates(embedded.s3.endpoint)
    store = connected(embedded, through)
    ref = ObjectRef(key)
    await store.put(ref, b"x")
    await gate.shut()
    for use in (store.stat, store.get, lambda p: store.put(p, b"x"), lambda p: store.put_new(p, b"x")):
        with pytest.raises(Unavailable, match="unavailable"):
            await use(ref)
    await gate.open()
    assert await store.get(ref) == b"x"
    store.close()


async def test_wrong_credentials_are_not_a_missing_object(embedded: Servers, key: str):
    store = connected(embedded, embedded.s3.endpoint, "wrong")
    with pytest.raises(Unavailable):
        await store.stat(ObjectRef(key))
    store.close()


async def test_an_object_that_is_cut_off_is_no_shorter_object(embedded: Servers, key: str):
    """A server that always sends less than its Content-Length."""
    requests = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal requests
        requests += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\nETag: "e"\r\n\r\nonly this')
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    store = connected(embedded, f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
    with pytest.raises(Unavailable):
        await store.get(ObjectRef(key))
    server.close()
    store.close()


async def test_a_store_that_fails_gets_one_retry(embedded: Servers, key: str, caplog):
    requests = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal requests
        requests += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    store = connected(embedded, f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
    caplog.set_level(logging.ERROR)
    with pytest.raises(Unavailable):
        await store.get(ObjectRef(key))
    assert requests == 2
    server.close()
    store.close()


async def test_an_error_of_the_reader_passes_through(store: Blobs, key: str):
    await store.put(ObjectRef(key), b"x")

    def use(stream: IO[bytes]) -> None:
        raise KeyError(stream.read())

    with pytest.raises(KeyError, match="b'x'"):
        await store.read(ObjectRef(key), use)
