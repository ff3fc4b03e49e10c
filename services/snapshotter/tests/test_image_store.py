"""Images of projects and their packages, in Postgres."""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from periplus.snapshotter.v1.events_pb2 import ImageMoved
from periplus_common import postgres
from periplus_common.errors import Unavailable
from periplus_snapshotter.images.manifest import Manifest
from periplus_snapshotter.images.reading import Images, ReadingLimits, checking_tags
from periplus_snapshotter.images.resolver import ImageResolver, ResolvedImage, ResolverLimits
from periplus_snapshotter.layers.layer import Layer
from periplus_snapshotter.snapshots.claim import Claim, Package
from periplus_snapshotter.snapshots.snapshot import Snapshot
from periplus_snapshotter.store.images import PostgresImages
from periplus_snapshotter.store.snapshots import PostgresSnapshots

PACKAGES = (Package("deb/openssl", "3.0"), Package("langchain", "0.3.1"))


def resolved(name: str, letter: str) -> ResolvedImage:
    digest = f"sha256:{letter * 64}"
    return ResolvedImage(name, digest, f"{name}@{digest}", manifest=Manifest(digest, config=digest))


@pytest.fixture
async def images(dsn: str):
    async with postgres.database(dsn) as database:
        yield PostgresImages(database)


async def digests(images: PostgresImages, project: str = "p") -> dict[str, str]:
    return {image.name: image.digest[7] for image in await images.list_images(project)}


async def test_an_image_is_listed_as_it_was_resolved_last_also_if_its_tag_was_moved_back(
    images: PostgresImages,
):
    for letter in "aba":
        await images.add_resolved("p", [resolved("x:1", letter), resolved("y:1", "c"), resolved("y:1", "c")])
        assert await digests(images) == {"x:1": letter, "y:1": "c"}
    assert await digests(images, "q") == {}


async def test_an_image_without_a_digest_is_not_stored(images: PostgresImages):
    await images.add_resolved("p", [ResolvedImage("x:1", reason="no")])
    assert await digests(images) == {}


async def test_a_package_is_found_in_the_images_and_snapshots_of_its_project_alone(
    dsn: str, images: PostgresImages
):
    await images.add_resolved("p", [resolved("x:1", "a"), resolved("x:2", "b")])
    await images.add_resolved("q", [resolved("x:1", "a")])
    await images.add_image(resolved("", "a").digest, PACKAGES)
    await images.add_image(resolved("", "a").digest, ())  # what is stored stays
    found = await images.find_package("p", "openssl")
    assert [(use.name, use.package, use.version) for use in found.images] == [("x:1", "deb/openssl", "3.0")]
    assert found.snapshots == ()
    claim = Claim(installed=PACKAGES)
    at = datetime.now(UTC)
    async with postgres.database(dsn) as database:
        snapshot = Snapshot("q", claim.id, claim.environment, claim, PACKAGES[1:], (), at)
        await PostgresSnapshots(database).add(snapshot, [])
    assert (await images.find_package("p", "langchain")).snapshots == ()
    rows = (await images.find_package("q", "langchain")).snapshots
    assert rows == ((claim.id, at, "0.3.1", True), (claim.id, at, "0.3.1", False))


async def test_packages_and_layers_are_given_back_as_they_were_read(images: PostgresImages):
    digest = resolved("", "a").digest
    assert await images.get_image(digest) is None
    assert await images.get_layer(digest) is None
    await images.add_image(digest, PACKAGES)
    layer = Layer({"a.dist-info/METADATA": [("a", "1")]}, ["gone"], ["folder", ""])
    await images.add_layer(digest, layer)
    await images.add_layer(digest, Layer())
    assert await images.get_image(digest) == PACKAGES
    assert await images.get_layer(digest) == layer


async def test_what_is_resolved_again_soon_is_not_written_again(dsn: str):
    async with postgres.database(dsn) as database:
        for touch_after, again in ((timedelta(hours=1), False), (timedelta(), True)):
            images = PostgresImages(database, touch_after)
            await images.add_resolved("p", [resolved("x:1", "a")])
            (first,) = await images.list_images("p")
            await images.add_resolved("p", [resolved("x:1", "a")])
            (second,) = await images.list_images("p")
            assert (second.resolved_at > first.resolved_at) is again


@dataclass
class Registry:
    """A registry with one image."""

    letter: str = "a"

    async def find_digest(self, reference) -> str:
        return f"sha256:{self.letter * 64}"

    async def get_manifest(self, reference, digest: str) -> Manifest:
        return Manifest(digest, config=digest)


async def test_a_tag_that_moved_is_published_once_for_each_project_that_resolved_it(dsn: str):
    registry = Registry()
    async with postgres.database(dsn) as database:
        resolver = ImageResolver(registry, ResolverLimits())
        images = Images(resolver, None, None, PostgresImages(database), ReadingLimits())

        async def moved() -> list[tuple[str, str, str, str]]:
            async with database.connection() as connection:
                rows = await connection.fetch(
                    "SELECT body FROM outbox WHERE subject LIKE '%ImageMoved%' ORDER BY id"
                )
            found = [ImageMoved.FromString(row["body"]) for row in rows]
            return [(each.project, each.image, each.old_digest[7], each.new_digest[7]) for each in found]

        for project in ("p", "q"):
            await images.resolve(project, ["x:1", "x@sha256:" + "c" * 64])
        assert await images.publish_moved(timedelta(days=1)) == 0
        registry.letter = "b"
        for _ in range(2):
            assert await images.publish_moved(timedelta(days=1)) == 2
        assert await moved() == [("p", "x:1", "a", "b"), ("q", "x:1", "a", "b")]
        await images.resolve("p", ["x:1"])
        assert await images.publish_moved(timedelta(days=1)) == 1
        registry.letter = "a"
        assert await images.publish_moved(timedelta(days=1)) == 1
        assert await moved() == [("p", "x:1", "a", "b"), ("q", "x:1", "a", "b"), ("p", "x:1", "b", "a")]
        async with database.connection() as connection:
            await connection.execute("UPDATE project_image SET resolved_at = now() - interval '2 days'")
        assert await images.publish_moved(timedelta(days=1)) == 0


async def test_tags_are_checked_at_the_interval_of_the_setting():
    checked = asyncio.Event()

    class Counting:
        async def publish_moved(self, within: timedelta) -> int:
            checked.set()
            raise Unavailable("Postgres can not be reached")  # which is logged

    async with checking_tags(Counting(), timedelta(seconds=0.01)):
        await asyncio.wait_for(checked.wait(), 10)
    checked.clear()
    async with checking_tags(Counting(), timedelta()):
        await asyncio.sleep(0.05)
    assert not checked.is_set()
