"""Retention on Postgres and S3: what is deleted, and that no snapshot loses a part."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from periplus_common import blobs, postgres
from periplus_common.errors import NotFound, Unavailable
from periplus_common.retention import delete_expired
from periplus_common.settings import ObjectStoreSettings
from periplus_local.stack.testing import Servers
from periplus_snapshotter.images.manifest import Manifest
from periplus_snapshotter.images.resolver import ResolvedImage
from periplus_snapshotter.layers.layer import Layer
from periplus_snapshotter.object_store import S3ObjectStore
from periplus_snapshotter.service import Snapshotter
from periplus_snapshotter.snapshots.claim import Blob, Claim, File, GitState, LibraryTemplate, Package
from periplus_snapshotter.store.images import PostgresImages
from periplus_snapshotter.store.retention import delete_unused_objects, retentions
from periplus_snapshotter.store.snapshots import PostgresSnapshots

KEEP = timedelta(days=30)
NO_IMAGES = {"project_image": 0, "image": 0, "image_layer": 0}
OLD = datetime.now(UTC) - timedelta(days=31)


@pytest.fixture
async def db(dsn: str) -> AsyncIterator[postgres.Database]:
    async with postgres.database(dsn) as opened:
        yield opened


@pytest.fixture
async def s3(embedded: Servers) -> AsyncIterator[S3ObjectStore]:
    client = blobs.connect(
        ObjectStoreSettings(
            postgres_dsn="",
            nats_url="",
            grpc_address="",
            token="",
            s3_endpoint=embedded.s3.endpoint,
            s3_access_key=embedded.s3.access_key,
            s3_secret_key=embedded.s3.secret_key,
            s3_bucket=embedded.s3.bucket,
        )
    )
    yield S3ObjectStore(client)
    client.close()


@pytest.fixture
def service(db: postgres.Database, s3: S3ObjectStore, parser) -> Snapshotter:
    return Snapshotter(PostgresSnapshots(db), s3, parser, lambda: datetime.now(UTC))


@pytest.fixture
def unique(claim: Claim) -> Claim:
    """With content that no other test has, as all tests share the object store."""
    salt = b"%d" % time.time_ns()
    untracked = (File(b"notes.txt", Blob.of(salt)),)
    git = replace(claim.git, patch=Blob.of(b"patch " + salt), untracked=untracked)
    templates = (LibraryTemplate("WorkflowTemplate/train", Blob.of(b"template " + salt)),)
    return replace(claim, git=git, code_archive=Blob.of(b"\x1f\x8b" + salt), templates=templates)


async def make_old(db: postgres.Database) -> None:
    async with db.connection() as connection:
        await connection.execute("UPDATE snapshot SET last_taken_at = $1", OLD)
        await connection.execute("UPDATE lockfile SET created_at = $1", OLD)
        await connection.execute("UPDATE package_set SET created_at = $1", OLD)
        await connection.execute("UPDATE stored_object SET used_at = $1", OLD)


async def counts(db: postgres.Database) -> dict[str, int]:
    tables = (
        "snapshot",
        "untracked_file",
        "library_template",
        "lockfile",
        "package_set",
        "package",
        "stored_object",
    )
    async with db.connection() as connection:
        return {table: await connection.fetchval(f"SELECT count(*) FROM {table}") for table in tables}


async def test_an_old_snapshot_is_deleted_with_its_rows_and_objects(dsn, db, s3, service, unique) -> None:
    await service.take("p", unique)
    await make_old(db)
    assert await delete_expired(dsn, retentions(KEEP)) == NO_IMAGES | {
        "snapshot": 1,
        "lockfile": 1,
        "package_set": 2,
    }
    assert await delete_unused_objects(db, s3.delete, KEEP, batch_objects=2) == 5
    assert not any((await counts(db)).values())
    with pytest.raises(NotFound):
        await s3.read(unique.git.patch)


async def test_nothing_is_deleted_by_default(dsn, db, service, unique) -> None:
    await service.take("p", unique)
    await make_old(db)
    assert await delete_expired(dsn, retentions(None)) == {}


async def test_a_snapshot_that_is_taken_again_stays(dsn, db, service, unique) -> None:
    taken = await service.take("p", unique)
    await make_old(db)
    assert await service.take("p", unique) == taken
    assert (await delete_expired(dsn, retentions(KEEP)))["snapshot"] == 0
    assert await service.get("p", taken.id)


async def test_what_another_snapshot_has_stays(dsn, db, s3, service, unique) -> None:
    await service.take("p", unique)
    await make_old(db)
    other = replace(
        unique, git=GitState("b" * 40, patch=unique.git.patch), installed=(Package("other", "1"),)
    )
    kept = await service.take("p", other)
    await make_old(db)
    async with db.connection() as connection:
        await connection.execute("UPDATE snapshot SET last_taken_at = now() WHERE id = $1", kept.id)
    assert await delete_expired(dsn, retentions(KEEP)) == NO_IMAGES | {
        "snapshot": 1,
        "lockfile": 0,
        "package_set": 1,
    }
    assert await delete_unused_objects(db, s3.delete, KEEP) == 1  # notes.txt
    found = await service.get("p", kept.id, with_content=True)
    assert found.claim.git.patch.content == unique.git.patch.content
    assert [package.name for package in found.locked] == ["numpy", "project"]


async def test_a_claim_writes_an_object_again_whose_deletion_failed(dsn, db, s3, service, unique) -> None:
    await service.take("p", unique)
    await make_old(db)
    await delete_expired(dsn, retentions(KEEP))

    async def delete_without_answer(_: str) -> None:
        for blob in unique.blobs:
            await s3.delete(blob.key)
        raise Unavailable("the answer was lost")

    with pytest.raises(Unavailable):
        await delete_unused_objects(db, delete_without_answer, KEEP)
    taken = await service.take("p", unique)
    found = await service.get("p", taken.id, with_content=True)
    assert found.claim.git.patch.content == unique.git.patch.content
    assert found.claim.git.untracked[0].blob.content == unique.git.untracked[0].blob.content
    await make_old(db)
    assert await delete_unused_objects(db, s3.delete, KEEP) == 0


async def test_a_claim_that_comes_while_its_objects_are_deleted_waits_and_writes_them_again(
    dsn, db, s3, service, unique
) -> None:
    await service.take("p", unique)
    await make_old(db)
    await delete_expired(dsn, retentions(KEEP))
    deleting, go_on = asyncio.Event(), asyncio.Event()

    async def slow_delete(key: str) -> None:
        deleting.set()
        await go_on.wait()
        await s3.delete(key)

    deletion = asyncio.create_task(delete_unused_objects(db, slow_delete, KEEP))
    await deleting.wait()
    taking = asyncio.create_task(service.take("p", unique))
    await asyncio.sleep(0.3)
    assert not taking.done()
    go_on.set()
    assert await deletion == 5
    taken = await taking
    found = await service.get("p", taken.id, with_content=True)
    assert found.claim.git.untracked[0].blob.content == unique.git.untracked[0].blob.content
    assert (await counts(db))["stored_object"] == 5


async def test_an_image_that_no_project_resolves_any_more_is_deleted_with_its_packages(dsn, db) -> None:
    images, digests = PostgresImages(db), [f"sha256:{letter * 64}" for letter in "ab"]
    for digest in digests:
        found = ResolvedImage(f"x@{digest}", digest, manifest=Manifest(digest, config=digest))
        await images.add_resolved("p", [found])
        await images.add_image(digest, (Package(digest, "1"),))
        await images.add_layer(digest, Layer())
    async with db.connection() as connection:
        await connection.execute("UPDATE image SET read_at = $1", OLD)
        await connection.execute("UPDATE package_set SET created_at = $1", OLD)
        for table, column in (("project_image", "resolved_at"), ("image_layer", "read_at")):
            await connection.execute(f"UPDATE {table} SET {column} = $1 WHERE digest = $2", OLD, digests[0])
    deleted = await delete_expired(dsn, retentions(KEEP))
    assert {name: deleted[name] for name in NO_IMAGES} == dict.fromkeys(NO_IMAGES, 1)
    assert await images.get_image(digests[0]) is None
    assert await images.get_image(digests[1]) == (Package(digests[1], "1"),)
