"""The object store on a real S3: who wins, what is gone, what is away, and what is nobody's business."""

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator
from typing import IO

import pytest

from periplus_common import blobs
from periplus_common.blobs import Blobs, Place
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
    won = await asyncio.gather(*(store.put_new(Place(key), b"%d" % i) for i in range(16)))
    assert won.count(True) == 1
    assert await store.get(Place(key)) == b"%d" % won.index(True)


async def test_what_is_written_over_is_read(store: Blobs, key: str):
    for content in (b"", b"one", b"two" * 100_000):
        await store.put(Place(key), content)
        assert await store.get(Place(key)) == content
        stat = await store.stat(Place(key))
        assert stat
        assert stat.size == len(content)
        assert '"' not in stat.etag


async def test_many_places_are_looked_at_side_by_side(store: Blobs, key: str):
    there = [Place(f"{key}/{i}") for i in range(20)]
    await asyncio.gather(*(store.put(place, b"x") for place in there))
    gone = [Place(f"{key}/{i}") for i in range(20, 25)] + [Place("x", "no-such-bucket")]
    found = await store.stat_many([*there, *gone, there[0]])
    assert list(found) == [*there, *gone]
    assert [place for place, stat in found.items() if stat is None] == gone


async def test_what_is_not_there_is_not_found(store: Blobs, key: str):
    for place in (Place(key), Place(key, "no-such-bucket")):
        assert await store.stat(place) is None
        with pytest.raises(NotFound):
            await store.get(place)


async def test_an_object_that_is_too_large_will_always_be(store: Blobs, key: str):
    await store.put(Place(key), b"12345")
    assert await store.get(Place(key), limit=5) == b"12345"
    with pytest.raises(Invalid, match="larger than 4 bytes"):
        await store.get(Place(key), limit=4)


async def test_another_store_is_neither_read_nor_taken_for_ours(store: Blobs, key: str):
    await store.put(Place(key), b"ours")
    elsewhere = Place(key, endpoint="s3.example.com")
    for use in (store.stat, store.get, lambda p: store.put(p, b"x"), lambda p: store.put_new(p, b"x")):
        with pytest.raises(NotFound, match="no credentials"):
            await use(elsewhere)
    assert await store.get(Place(key, endpoint=store.endpoint)) == b"ours"


@pytest.mark.parametrize(
    "place",
    [Place(""), Place("k", "UPPER"), Place("k", "a"), Place("k", "../up"), Place("x" * 1025)],
    ids=str,
)
async def test_a_place_that_can_not_be_is_the_callers_mistake(store: Blobs, place: Place):
    for use in (store.stat, store.get, lambda p: store.put(p, b"x"), lambda p: store.put_new(p, b"x")):
        with pytest.raises(Invalid):
            await use(place)


async def test_a_store_that_is_away_is_unavailable_and_then_there_again(embedded: Servers, gates, key: str):
    gate, through = await gates(embedded.s3.endpoint)
    store = connected(embedded, through)
    place = Place(key)
    await store.put(place, b"x")
    await gate.shut()
    for use in (store.stat, store.get, lambda p: store.put(p, b"x"), lambda p: store.put_new(p, b"x")):
        with pytest.raises(Unavailable, match="away"):
            await use(place)
    await gate.open()
    assert await store.get(place) == b"x"
    store.close()


async def test_wrong_credentials_are_not_a_missing_object(embedded: Servers, key: str):
    store = connected(embedded, embedded.s3.endpoint, "wrong")
    with pytest.raises(Unavailable):
        await store.stat(Place(key))
    store.close()


async def test_an_object_that_breaks_off_is_no_shorter_object(embedded: Servers, key: str):
    """A server that promises more than it sends, again and again."""
    asked = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\nETag: "e"\r\n\r\nonly this')
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    store = connected(embedded, f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
    with pytest.raises(Unavailable):
        await store.get(Place(key))
    server.close()
    store.close()


async def test_a_store_that_fails_is_asked_twice_and_no_more(embedded: Servers, key: str, caplog):
    asked = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    store = connected(embedded, f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
    caplog.set_level(logging.ERROR)
    with pytest.raises(Unavailable):
        await store.get(Place(key))
    assert asked == 2
    server.close()
    store.close()


async def test_an_error_of_who_reads_is_theirs(store: Blobs, key: str):
    await store.put(Place(key), b"x")

    def use(stream: IO[bytes]) -> None:
        raise KeyError(stream.read())

    with pytest.raises(KeyError, match="b'x'"):
        await store.read(Place(key), use)
