import asyncio
from dataclasses import replace
from datetime import UTC, datetime

import asyncpg
import pytest

from periplus.snapshotter.v1.events_pb2 import SnapshotTaken
from periplus_common import postgres
from periplus_snapshotter.domain import Claim, Lockfile, Package, Part, Snapshot
from periplus_snapshotter.service import Kept
from periplus_snapshotter.store import PostgresStore

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
LOCKED = (Package("numpy", "2.1.0", ("sha256:" + "a" * 64, "sha256:" + "b" * 64)), Package("project", ""))


@pytest.fixture
def snapshot(claim: Claim) -> Snapshot:
    return Snapshot("p", claim, LOCKED, ("beware",), NOW, claim.id, claim.environment)


def kept(part: Part) -> Kept:
    return Kept(part.digest, part.key, part.size, "etag")


async def test_a_snapshot_comes_back_as_it_was(store, snapshot: Snapshot) -> None:
    await store.add(snapshot, [])
    found = await store.get("p", snapshot.id)
    files = sorted(snapshot.claim.git.untracked, key=lambda file: file.path)
    git = replace(snapshot.claim.git, untracked=tuple(files))
    assert found == replace(snapshot, claim=replace(snapshot.claim, git=git))
    assert await store.get("q", snapshot.id) is None


async def test_a_bare_claim_comes_back_as_it_was(store) -> None:
    claim = Claim()
    await store.add(Snapshot("p", claim, (), (), NOW, claim.id, claim.environment), [])
    assert (await store.get("p", claim.id)).claim == claim


async def test_the_first_record_of_an_id_stays(store, snapshot: Snapshot) -> None:
    first = await store.add(snapshot, [])
    again = await store.add(replace(snapshot, warnings=("other",), taken_at=NOW.replace(hour=13)), [])
    assert first == again
    assert (await store.get("p", snapshot.id)).taken_at == NOW


async def test_what_is_taken_is_found_with_its_code(store, snapshot: Snapshot) -> None:
    key = snapshot.claim.code.code_key
    assert await store.taken("p", snapshot.id, key) == (None, None)
    code = Kept(snapshot.claim.code.digest, key, 6, "e")
    await store.add(snapshot, [code])
    taken, found = await store.taken("p", snapshot.id, key)
    assert (taken.id, taken.environment, taken.code_key, taken.warnings) == (
        snapshot.id, snapshot.environment, key, ("beware",),
    )  # fmt: skip
    assert found == code
    assert await store.taken("q", snapshot.id, key) == (None, code)


async def test_lockfiles_and_objects_are_known_after_the_first(store, snapshot: Snapshot) -> None:
    lockfile, parts = snapshot.claim.lockfile, snapshot.claim.parts
    empty = await store.known(lockfile, [part.key for part in parts])
    assert (empty.blobs, empty.locked) == ({}, None)
    await store.add(snapshot, map(kept, parts))
    known = await store.known(lockfile, [part.key for part in parts])
    assert known.locked == LOCKED
    assert known.blobs == {part.key: kept(part) for part in parts}
    # The same bytes under another name are another lockfile.
    assert (await store.known(Lockfile("pylock.toml", lockfile.part), [])).locked is None


async def test_an_object_that_was_written_again_is_known_as_it_is_now(store, snapshot: Snapshot) -> None:
    part = snapshot.claim.lockfile.part
    await store.add(snapshot, [kept(part)])
    again = replace(kept(part), etag="another")
    await store.add(snapshot, [again])
    assert (await store.known(None, [part.key])).blobs == {part.key: again}


async def test_one_event_tells_of_a_snapshot_however_often_it_is_taken(dsn: str, snapshot: Snapshot) -> None:
    async with postgres.database(dsn) as database:
        store = PostgresStore(database)
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
