"""Content digests of objects: each version is read once, and its digest is stored."""

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from periplus_cache.domain import ObjectVersion, VersionedObject
from periplus_cache.ports import ObjectStore, Store
from periplus_common.errors import Invalid, NotFound
from periplus_common.object_key import may_read
from periplus_model.steps import ObjectRef

MAX_CONCURRENT_READS = 6  # of the 16 requests that the S3 client runs at a time: HEAD requests need some, too


@dataclass(frozen=True, slots=True)
class Content:
    """An object's content digest and its version."""

    digest: str
    version: ObjectVersion


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Why an object has no content digest. `is_absent`: there is none, or none that the project may read."""

    reason: str
    is_absent: bool = False


class ContentReader:
    """Finds the digests of objects. Concurrent requests for one object share one read."""

    def __init__(self, store: Store, objects: ObjectStore) -> None:
        self._store = store
        self._objects = objects
        self._reading: dict[VersionedObject, asyncio.Task[tuple[VersionedObject, str]]] = {}
        self._reads = asyncio.Semaphore(MAX_CONCURRENT_READS)

    async def read(
        self, project: str, refs: Collection[ObjectRef]
    ) -> Mapping[ObjectRef, Content | Unreadable]:
        """The content of each object, where those of other projects do not exist.

        Raises `Unavailable` if Postgres or S3 can not be reached.
        """
        readable = [ref for ref in refs if may_read(project, ref.key)]
        if not readable:
            return {ref: _absent(ref) for ref in refs}
        versions = {r: version for r, version in (await self._objects.versions(readable)).items() if version}
        objects = {r: VersionedObject(self._objects.absolute(r), version) for r, version in versions.items()}
        stored = await self._store.content_digests(set(objects.values())) if objects else {}
        contents: dict[ObjectRef, Content | Unreadable] = {
            ref: Content(stored[found], versions[ref]) for ref, found in objects.items() if found in stored
        }
        unread = [ref for ref, found in objects.items() if found not in stored]
        read = await asyncio.gather(*(self._read(ref, objects[ref], versions[ref]) for ref in unread))
        contents |= zip(unread, read, strict=True)
        absent = [ref for ref in readable if ref not in versions]
        folders = await asyncio.gather(*map(self._objects.is_folder, absent))
        contents |= {ref: _folder(ref) for ref, found in zip(absent, folders, strict=True) if found}
        return {ref: contents.get(ref) or _absent(ref) for ref in refs}

    async def _read(
        self, ref: ObjectRef, expected: VersionedObject, version: ObjectVersion
    ) -> Content | Unreadable:
        task = self._reading.get(expected)
        if task is None:
            task = self._reading[expected] = asyncio.create_task(self._digest(ref))
            task.add_done_callback(lambda _: self._reading.pop(expected, None))
        try:
            found, digest = await asyncio.shield(task)
        except NotFound:
            return _absent(ref)
        except Invalid as error:
            return Unreadable(f"the object {ref.key} can not be digested: {error.message}")
        if found.version.etag != expected.version.etag:
            return Unreadable(f"the object {ref.key} changed while it was read")
        return Content(digest, version)

    async def _digest(self, ref: ObjectRef) -> tuple[VersionedObject, str]:
        async with self._reads:
            found, digest = await self._objects.read_digest(ref)
        await self._store.add_content_digests({found: digest})
        return found, digest


def _folder(ref: ObjectRef) -> Unreadable:
    return Unreadable(
        f"{ref.key} is a folder that was stored without an archive, as many objects, which is not cached: "
        "leave out archive: {none: {}}"
    )


def _absent(ref: ObjectRef) -> Unreadable:
    return Unreadable(f"there is no object {ref.key} that can be read here", is_absent=True)
