"""The embedded servers as tests and services use them."""

from __future__ import annotations

import io

import asyncpg
import nats
import pytest
from minio import Minio
from nats.js.errors import APIError

from periplus_local.stack.testing import Servers, database


async def test_postgres_gives_each_service_its_own_schema(embedded: Servers) -> None:
    connection = await asyncpg.connect(embedded.service_dsns["cache"])
    try:
        assert await connection.fetchval("SELECT current_schema()") == "cache"
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("CREATE TABLE lineage.stolen (id int)")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("CREATE TABLE public.shared (id int)")
    finally:
        await connection.close()


async def test_postgres_refuses_a_wrong_password(embedded: Servers) -> None:
    wrong = embedded.service_dsns["cache"].replace(":", ":x", 2).replace("x//", "//", 1)
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(wrong)


async def test_a_database_of_a_test_is_empty_and_is_dropped_at_its_end(embedded: Servers) -> None:
    async with database(embedded) as dsn:
        connection = await asyncpg.connect(dsn)
        assert (
            await connection.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname !~ '^(pg_|info)'") == 0
        )
        await connection.close()
    with pytest.raises(asyncpg.InvalidCatalogNameError):
        await asyncpg.connect(dsn)


async def test_a_repeated_event_is_stored_once(embedded: Servers) -> None:
    connection = await nats.connect(embedded.nats_url)
    try:
        jetstream = connection.jetstream()
        subject = "periplus.cache.v1.EntryRecorded.p.r"
        headers = {"Nats-Msg-Id": "one"}
        first = await jetstream.publish(subject, b"x", headers=headers)
        repeated = await jetstream.publish(subject, b"x", headers=headers)
        assert (first.stream, first.duplicate) == ("CACHE", None)
        assert repeated.duplicate
    finally:
        await connection.close()


async def test_a_batch_is_stored_as_a_whole_or_not_at_all(embedded: Servers) -> None:
    connection = await nats.connect(embedded.nats_url)
    try:
        jetstream = connection.jetstream()
        headers = {"Nats-Batch-Id": "b", "Nats-Batch-Sequence": "1", "Nats-Batch-Commit": "1"}
        stored = await jetstream.publish("periplus.snapshotter.v1.X.p.r", b"x", headers=headers)
        assert stored.batch_size == 1
        with pytest.raises(APIError):
            await jetstream.publish(
                "periplus.snapshotter.v1.X.p.r",
                b"x",
                headers={"Nats-Batch-Id": "c", "Nats-Batch-Sequence": "2"},
            )
    finally:
        await connection.close()


def test_an_object_that_was_put_can_be_read(embedded: Servers) -> None:
    store = embedded.s3
    client = Minio(store.endpoint, store.access_key, store.secret_key, secure=False)
    client.put_object(store.bucket, "a/b", io.BytesIO(b"bytes"), 5)
    assert client.get_object(store.bucket, "a/b").data == b"bytes"
