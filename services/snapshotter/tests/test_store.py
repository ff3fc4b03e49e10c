import asyncio
from dataclasses import replace
from datetime import UTC, datetime

import asyncpg
import pytest

from periplus.snapshotter.v1.events_pb2 import SnapshotTaken
from periplus_common import postgres
from periplus_snapshotter.snapshots.claim import Blob, Claim, Lockfile, Package
from periplus_snapshotter.snapshots.snapshot import Snapshot, StoredObject
from periplus_snapshotter.store.snapshots import PostgresSnapshots

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
LOCKED = (Package("numpy", "2.1.0", ("sha256:" + "a" * 64, "sha256:" + "b" * 64)), Package("project", ""))


@pytest.fixture
def snapshot(claim: Claim) -> Snapshot:
    return Snapshot("p", claim.id, claim.environment, claim, LOCKED, ("beware",), NOW)


def stored_object(blob: Blob) -> StoredObject:
    return StoredObject(blob.digest, blob.key, blob.size_bytes, "etag")


async def test_a_snapshot_is_returned_as_it_was_stored(store, snapshot: Snapshot) -> None:
    await store.add(snapshot, [])
    found = await store.get("p", snapshot.id)
    files = sorted(snapshot.claim.git.untracked, key=lambda file: file.path)
    git = replace(snapshot.claim.git, untracked=tuple(files))
    assert found == replace(snapshot, claim=replace(snapshot.claim, git=git))
    assert await store.get("q", snapshot.id) is None


async def test_an_empty_claim_is_returned_as_it_was_stored(store) -> None:
    claim = Claim()
    await store.add(Snapshot("p", claim.id, claim.environment, claim, (), (), NOW), [])
    assert (await store.get("p", claim.id)).claim == claim


async def test_a_stored_snapshot_is_not_replaced(store, snapshot: Snapshot) -> None:
    first = await store.add(snapshot, [])
    second = await store.add(replace(snapshot, warnings=("other",), taken_at=NOW.replace(hour=13)), [])
    assert first == second
    assert (await store.get("p", snapshot.id)).taken_at == NOW


async def test_a_snapshot_is_found_with_its_code_archive(store, snapshot: Snapshot) -> None:
    key = snapshot.claim.code_archive.code_key("p")
    assert await store.find("p", snapshot.id, key) == (None, None)
    code = StoredObject(snapshot.claim.code_archive.digest, key, 6, "e")
    await store.add(snapshot, [code])
    taken, found = await store.find("p", snapshot.id, key)
    assert (taken.id, taken.environment, taken.code_key, taken.warnings) == (
        snapshot.id, snapshot.environment, key, ("beware",),
    )  # fmt: skip
    assert found == code
    assert await store.find("q", snapshot.id, key) == (None, code)


async def test_lockfiles_and_objects_are_stored_for_later_snapshots(store, snapshot: Snapshot) -> None:
    lockfile, blobs = snapshot.claim.lockfile, snapshot.claim.blobs
    empty = await store.stored_content(lockfile, [blob.key for blob in blobs])
    assert (empty.objects, empty.locked) == ({}, None)
    await store.add(snapshot, map(stored_object, blobs))
    stored = await store.stored_content(lockfile, [blob.key for blob in blobs])
    assert stored.locked == LOCKED
    assert stored.objects == {blob.key: stored_object(blob) for blob in blobs}
    # The same content with another name is another lockfile.
    assert (await store.stored_content(Lockfile("pylock.toml", lockfile.blob), [])).locked is None


async def test_an_object_that_was_written_again_is_stored_with_its_new_etag(
    store, snapshot: Snapshot
) -> None:
    blob = snapshot.claim.lockfile.blob
    await store.add(snapshot, [stored_object(blob)])
    rewritten = replace(stored_object(blob), etag="another")
    await store.add(snapshot, [rewritten])
    assert (await store.stored_content(None, [blob.key])).objects == {blob.key: rewritten}


async def test_a_snapshot_that_is_taken_concurrently_has_one_event(dsn: str, snapshot: Snapshot) -> None:
    async with postgres.database(dsn) as database:
        store = PostgresSnapshots(database)
        await asyncio.gather(*(store.add(snapshot, []) for _ in range(8)))
    connection = await asyncpg.connect(dsn)
    try:
        (row,) = await connection.fetch("SELECT subject, body FROM outbox")
        sets = await connection.fetchval("SELECT count(*) FROM package_set")
    finally:
        await connection.close()
    event = SnapshotTaken.FromString(row["body"])
    assert row["subject"] == "periplus.snapshotter.v1.SnapshotTaken.p.-"
    assert (event.snapshot, event.dirty, event.locked_packages) == (snapshot.id, True, 2)
    assert sets == 2
