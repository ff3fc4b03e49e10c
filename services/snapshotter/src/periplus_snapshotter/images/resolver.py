"""From names of images to digests, for a whole plan at a time. An image that can not be resolved has a reason instead."""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Protocol

from periplus_common.errors import NotFound, PeriplusError, Unavailable
from periplus_snapshotter.images.manifest import Manifest
from periplus_snapshotter.images.reference import ImageReference, parse, pinned

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ResolverLimits:
    """`budget` is the time for all images of a call, and for one image. For `keep_tag` a digest is not asked for again (a tag
    that was moved meanwhile is not noticed), for `keep_failure` a registry that does not answer. `max_kept` is the number of
    each that are kept.
    """

    budget: timedelta = timedelta(seconds=5)
    keep_tag: timedelta = timedelta()
    keep_failure: timedelta = timedelta(seconds=30)
    max_kept: int = 10_000
    platform: str = "linux/amd64"
    """The platform whose config and layers are those of an image for several platforms."""


@dataclass(frozen=True)
class ResolvedImage:
    """An image by its digest, or the reason why it has none.

    `digest` is what the tag points to: of an image for several platforms, the index. `pinned` is the image's name with it.
    `also` are the other digests by which a node may report the same image: those of the index's manifests, and of the
    config. `manifest` is that of the platform, None if there is none.
    """

    image: str
    digest: str = ""
    pinned: str = ""
    also: tuple[str, ...] = ()
    manifest: Manifest | None = None
    reason: str = ""
    fix: str = ""
    is_absent: bool = False
    """The registry answered that it has no such image."""


class Registries(Protocol):
    """The registries that may be asked."""

    async def find_digest(self, reference: ImageReference) -> str:
        """The digest that a tag points to. Raises `PeriplusError`."""

    async def get_manifest(self, reference: ImageReference, digest: str) -> Manifest:
        """A manifest of the reference's repository, whose bytes have the digest. Raises `PeriplusError`."""


class ImageResolver:
    """Resolves images. Several calls for the same image at a time ask its registry once."""

    def __init__(self, registries: Registries, limits: ResolverLimits) -> None:
        self._registries = registries
        self._limits = limits
        self._kept: OrderedDict[str, tuple[float, ResolvedImage]] = OrderedDict()
        self._manifests: OrderedDict[str, Manifest] = OrderedDict()
        self._tasks: dict[str, asyncio.Task[ResolvedImage]] = {}

    async def resolve(self, images: Sequence[str]) -> list[ResolvedImage]:
        """Each image, in order. Ends within the budget; what has no answer by then is answered the next time, perhaps."""
        tasks = {image: self._task(image) for image in dict.fromkeys(images)}
        if tasks:
            await asyncio.wait(tasks.values(), timeout=self._limits.budget.total_seconds())
        return [tasks[image].result() if tasks[image].done() else self._late(image) for image in images]

    async def aclose(self) -> None:
        """End what is still asked for."""
        for task in list(self._tasks.values()):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    def _task(self, image: str) -> asyncio.Task[ResolvedImage]:
        task = self._tasks.get(image)
        if task is None:
            task = self._tasks[image] = asyncio.create_task(self._resolve(image))
            task.add_done_callback(lambda _: self._tasks.pop(image, None))
        return task

    async def _resolve(self, image: str) -> ResolvedImage:
        until, kept = self._kept.get(image, (0.0, None))
        if kept is not None and time.monotonic() < until:
            return kept
        keep = self._limits.keep_tag
        try:
            async with asyncio.timeout(self._limits.budget.total_seconds()):
                found = await self._ask(image)
        except TimeoutError:
            found, keep = self._late(image), self._limits.keep_failure
        except PeriplusError as error:
            absent = isinstance(error, NotFound)
            found = ResolvedImage(image, reason=error.message, fix=error.fix, is_absent=absent)
            keep = self._limits.keep_failure if isinstance(error, Unavailable) else keep
        except Exception:
            # One image must not fail the others, nor the plan.
            log.exception("the image %r can not be resolved", image)
            found = ResolvedImage(image, reason="the snapshotter failed to ask for it; its log says why")
        self._kept[image] = (time.monotonic() + keep.total_seconds(), found)
        _trim(self._kept, self._limits.max_kept)
        return found

    async def _ask(self, image: str) -> ResolvedImage:
        reference = parse(image)
        digest = reference.digest
        if digest:  # an image by digest never changes, and may be gone
            await self._registries.find_digest(replace(reference, tag=digest))
        else:
            digest = await self._registries.find_digest(reference)
        manifest = await self._manifest(reference, digest)
        also: list[str] = list(manifest.listed)
        of_platform: Manifest | None = manifest
        if manifest.is_index:
            inner = manifest.of_platform(self._limits.platform)
            of_platform = await self._manifest(reference, inner) if inner else None
        if of_platform is not None and of_platform.config:
            also.append(of_platform.config)
        return ResolvedImage(image, digest, pinned(image, digest), tuple(also), of_platform)

    async def _manifest(self, reference: ImageReference, digest: str) -> Manifest:
        """A manifest, asked for once: its digest is that of its bytes."""
        if digest not in self._manifests:
            self._manifests[digest] = await self._registries.get_manifest(reference, digest)
            _trim(self._manifests, self._limits.max_kept)
        return self._manifests[digest]

    def _late(self, image: str) -> ResolvedImage:
        seconds = self._limits.budget.total_seconds()
        return ResolvedImage(image, reason=f"its registry did not answer within {seconds:g} s")


def _trim(
    kept: "OrderedDict[str, tuple[float, ResolvedImage]] | OrderedDict[str, Manifest]", size: int
) -> None:
    while len(kept) > size:
        kept.popitem(last=False)
