"""The packages of images, from their layers: each layer is read once, whatever images have it."""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from periplus_common.errors import Invalid, PeriplusError, Refused, Unavailable
from periplus_common.runtime import background_task
from periplus_snapshotter.images.manifest import Manifest
from periplus_snapshotter.images.reference import ImageReference, parse
from periplus_snapshotter.images.resolver import ImageResolver, ResolvedImage
from periplus_snapshotter.layers.layer import Layer, packages_of
from periplus_snapshotter.snapshots.claim import Package

log = logging.getLogger(__name__)

MAX_CHECKED_AT_ONCE = 20
"""Images that are resolved at a time when tags are checked: their registries have other work."""


@dataclass(frozen=True)
class ReadingLimits:
    """`max_bytes` is the size of an image as its registry stores it; `wait` how long a caller waits for an image that is being
    read, `max_time` the longest time that reading one takes. With `read_resolved` the images that are resolved are read by
    themselves, one after the other.
    """

    max_bytes: int = 16 << 30
    wait: timedelta = timedelta(seconds=20)
    max_time: timedelta = timedelta(minutes=30)
    read_resolved: bool = False
    max_waiting: int = 100
    """Images that wait to be read by themselves; what is resolved beyond that is read when it is resolved again."""


@dataclass(frozen=True)
class ImageContent:
    """An image with its packages; those that are no Python packages have their kind before their name (`deb/openssl`)."""

    image: ResolvedImage
    packages: tuple[Package, ...]


@dataclass(frozen=True)
class ProjectImage:
    """An image as it was resolved last in a project."""

    name: str
    digest: str
    resolved_at: datetime


@dataclass(frozen=True)
class ImageUse:
    """An image of a project that has a package."""

    name: str
    digest: str
    resolved_at: datetime
    package: str
    version: str


@dataclass(frozen=True)
class PackageUse:
    """Where a project has a package: in images, and in snapshots (id, time, version, installed rather than locked)."""

    images: tuple[ImageUse, ...]
    snapshots: tuple[tuple[str, datetime, str, bool], ...]


class ImageStore(Protocol):
    async def add_resolved(self, project: str, images: Sequence[ResolvedImage]) -> None:
        """Store the digests that images of a project have now."""

    async def list_images(self, project: str) -> list[ProjectImage]:
        """The images of a project by name, each as it was resolved last."""

    async def list_current(self, within: timedelta) -> list[tuple[str, ProjectImage]]:
        """Project and image of every image that was resolved within a time, each as it was resolved last."""

    async def add_moved(self, moved: Sequence[tuple[str, ProjectImage, str]]) -> None:
        """Publish that tags point to other digests now (project, image, new digest), each once."""

    async def get_image(self, manifest: str) -> tuple[Package, ...] | None:
        """The packages of an image that was read."""

    async def add_image(self, manifest: str, packages: tuple[Package, ...]) -> None:
        """Store the packages of an image."""

    async def get_layer(self, digest: str) -> Layer | None:
        """A layer that was read."""

    async def add_layer(self, digest: str, layer: Layer) -> None:
        """Store a layer."""

    async def find_package(self, project: str, name: str) -> PackageUse:
        """Where a project has a package, the latest first."""


class Blobs(Protocol):
    def read_blob(self, reference: ImageReference, digest: str) -> AsyncIterator[bytes]:
        """The bytes of a layer, unchecked. Raises `PeriplusError`."""


class LayerReader(Protocol):
    async def read(self, digest: str, size_bytes: int, content: AsyncIterator[bytes]) -> Layer:
        """What a layer has, its bytes checked by its digest. Raises `Invalid`, `Unavailable`."""


class Images:
    """The images of projects."""

    def __init__(
        self,
        resolver: ImageResolver,
        blobs: Blobs,
        layers: LayerReader,
        store: ImageStore,
        limits: ReadingLimits,
    ) -> None:
        self._resolver = resolver
        self._blobs = blobs
        self._layers = layers
        self._store = store
        self._limits = limits
        self._tasks: dict[str, asyncio.Task[tuple[Package, ...]]] = {}

    async def resolve(self, project: str, images: Sequence[str]) -> list[ResolvedImage]:
        """Each image, in order, by its digest or with a reason. What is found is stored for the project."""
        found = await self._resolver.resolve(images)
        try:
            await self._store.add_resolved(project, found)
            if self._limits.read_resolved:
                await self._read_in_background(found)
        except PeriplusError as error:
            log.warning("the images of %s are not stored: %s", project, error)
        return found

    async def _read_in_background(self, found: Sequence[ResolvedImage]) -> None:
        for each in found:
            waits = len(self._tasks) >= self._limits.max_waiting
            if (
                each.manifest is not None
                and not waits
                and await self._store.get_image(each.manifest.digest) is None
            ):
                self._task(parse(each.image), each.manifest)

    async def check(self, project: str) -> list[tuple[ProjectImage, ResolvedImage]]:
        """The images of a project as they were resolved last, and what their tags point to now; nothing is stored."""
        known = await self._store.list_images(project)
        return list(zip(known, await self._resolver.resolve([image.name for image in known]), strict=True))

    async def publish_moved(self, within: timedelta) -> int:
        """Publish the images of all projects, resolved within a time, whose tags point elsewhere now. Gives their number."""
        known = await self._store.list_current(within)
        names = list(dict.fromkeys(image.name for _, image in known))
        now: dict[str, str] = {}
        for start in range(0, len(names), MAX_CHECKED_AT_ONCE):
            found = await self._resolver.resolve(names[start : start + MAX_CHECKED_AT_ONCE])
            now |= {each.image: each.digest for each in found if each.digest}
        moved = [
            (project, image, now[image.name])
            for project, image in known
            if now.get(image.name, image.digest) != image.digest
        ]
        await self._store.add_moved(moved)
        return len(moved)

    async def read(self, project: str, image: str) -> ImageContent:
        """An image with its packages. Raises `Refused`, `Unavailable`, also while it is being read: ask again."""
        (found,) = await self.resolve(project, [image])
        if not found.digest:
            raise Refused(f"{image}: {found.reason}", field="image", reason="IMAGE_UNRESOLVED", fix=found.fix)
        if found.manifest is None:
            raise Refused(f"{image} is for other platforms", field="image", reason="IMAGE_PLATFORM")
        packages = await self._store.get_image(found.manifest.digest)
        if packages is None:
            packages = await self._join(parse(image), found.manifest)
        return ImageContent(found, packages)

    async def find_package(self, project: str, name: str) -> PackageUse:
        """Where a project has a package: in images that were read, and in snapshots."""
        return await self._store.find_package(project, name)

    async def aclose(self) -> None:
        """End what is being read."""
        for task in list(self._tasks.values()):
            task.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await task

    async def _join(self, reference: ImageReference, manifest: Manifest) -> tuple[Package, ...]:
        """The packages of an image that several callers may ask for at a time."""
        task = self._task(reference, manifest)
        done, _ = await asyncio.wait([task], timeout=self._limits.wait.total_seconds())
        if not done:
            raise Unavailable(
                f"{reference.repository} is still being read",
                reason="IMAGE_BEING_READ",
                fix="ask again in a minute",
            )
        return task.result()

    def _task(self, reference: ImageReference, manifest: Manifest) -> asyncio.Task[tuple[Package, ...]]:
        task = self._tasks.get(manifest.digest)
        if task is None:
            task = self._tasks[manifest.digest] = asyncio.create_task(self._read(reference, manifest))
            task.add_done_callback(lambda ended: self._ended(manifest.digest, ended))
        return task

    def _ended(self, digest: str, task: asyncio.Task[tuple[Package, ...]]) -> None:
        self._tasks.pop(digest, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            # Whoever asked may not wait any more.
            log.warning("the image %s was not read: %s", digest, error)

    async def _read(self, reference: ImageReference, manifest: Manifest) -> tuple[Package, ...]:
        size = sum(layer.size_bytes for layer in manifest.layers)
        if size > self._limits.max_bytes:
            raise Refused(f"the image has {size} bytes, at most {self._limits.max_bytes} are read")
        layers = []
        try:
            async with asyncio.timeout(self._limits.max_time.total_seconds()):
                for each in manifest.layers:
                    layer = await self._store.get_layer(each.digest)
                    if layer is None:
                        content = self._blobs.read_blob(reference, each.digest)
                        layer = await self._layers.read(each.digest, each.size_bytes, content)
                        await self._store.add_layer(each.digest, layer)
                    layers.append(layer)
        except TimeoutError as error:
            raise Unavailable(f"{reference.repository} was not read in time") from error
        except Invalid as error:
            raise Refused(error.message, reason="IMAGE_UNREADABLE") from error
        packages = tuple(sorted(Package(name, version) for name, version in packages_of(layers)))
        await self._store.add_image(manifest.digest, packages)
        return packages


@asynccontextmanager
async def checking_tags(
    images: Images, interval: timedelta, within: timedelta = timedelta(days=30)
) -> AsyncIterator[None]:
    """Publish moved tags once every `interval` while the block is open; never if it is 0. A failure is logged."""

    async def run() -> None:
        while True:
            await asyncio.sleep(interval.total_seconds())
            try:
                await images.publish_moved(within)
            except PeriplusError as error:
                log.warning("the tags of images are not checked: %s", error)

    if not interval:
        yield
        return
    async with background_task(run()):
        yield
