"""Objects in S3: their versions, and the content digests of what Argo stores."""

import asyncio
import zlib
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import IO

from periplus_cache.domain import ObjectVersion, VersionedObject
from periplus_common import digest
from periplus_common.blobs import Blobs
from periplus_common.errors import NotFound
from periplus_model.steps import ObjectRef

MIN_OBJECTS_TO_LIST = 12  # in a folder: from here on one listing is cheaper than a HEAD for each object
LISTED_PER_OBJECT = 4  # at most: a folder also has other objects, such as logs

_TAR_HEADER_BYTES = 512
_GZIP_MAGIC = b"\x1f\x8b"
_PEEKED_BYTES = 64 << 10  # enough of a compressed stream to decompress the first header


class S3ObjectStore:
    """The ObjectStore of `ports` on S3."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs

    def absolute(self, ref: ObjectRef) -> ObjectRef:
        """The reference with the default bucket and endpoint filled in."""
        return ObjectRef(
            key=ref.key,
            bucket=ref.bucket or self._blobs.bucket,
            endpoint=ref.endpoint or self._blobs.endpoint,
        )

    async def versions(self, refs: Collection[ObjectRef]) -> Mapping[ObjectRef, ObjectVersion | None]:
        """The version of each object; None if there is none, or if it is in an object store that is not ours."""
        wanted = list(refs)
        return dict(zip(wanted, await asyncio.gather(*map(self._version, wanted)), strict=True))

    async def is_folder(self, ref: ObjectRef) -> bool:
        """Whether there are objects below a key that is none itself: a folder that was stored without an archive."""
        if ref.endpoint not in ("", self._blobs.endpoint):
            return False
        return bool(await self._blobs.list_prefix(replace(ref, key=f"{ref.key.rstrip('/')}/"), 1))

    async def changed(
        self, expected: Mapping[ObjectRef, ObjectVersion]
    ) -> Mapping[ObjectRef, ObjectVersion | None]:
        """Those objects that do not have the expected version, with the version that they have.

        Where many objects are in one folder, a listing confirms most of them; the others get a HEAD request each.
        """
        listed = await self._listed(expected)
        unconfirmed = [ref for ref, version in expected.items() if listed.get(ref) != version]
        versions = await self.versions(unconfirmed)
        return {ref: version for ref, version in versions.items() if version != expected[ref]}

    async def read_digest(self, ref: ObjectRef) -> tuple[VersionedObject, str]:
        """Read an object in a thread: the version that was read, and its content digest.

        Raises `NotFound` if there is no such object, `Invalid` if its content has no digest.
        """
        version, found = await self._blobs.read(ref, _read_digest)
        return VersionedObject(self.absolute(ref), version), found

    async def _listed(self, refs: Collection[ObjectRef]) -> Mapping[ObjectRef, ObjectVersion]:
        folders = Counter(folder for ref in refs if (folder := _run_folder(ref)) is not None)
        worthwhile = [
            folder
            for folder, count in folders.items()
            if count >= MIN_OBJECTS_TO_LIST and folder.endpoint in ("", self._blobs.endpoint)
        ]
        listings = await asyncio.gather(
            *(self._blobs.list_prefix(folder, LISTED_PER_OBJECT * folders[folder]) for folder in worthwhile)
        )
        return {
            ObjectRef(key, folder.bucket, folder.endpoint): ObjectVersion(stat.etag, stat.size, stat.modified)
            for folder, listing in zip(worthwhile, listings, strict=True)
            for key, stat in listing.items()
        }

    async def _version(self, ref: ObjectRef) -> ObjectVersion | None:
        try:
            stat = await self._blobs.stat(ref)
        except NotFound:
            return None
        return None if stat is None else ObjectVersion(stat.etag, stat.size, stat.modified)


def _run_folder(ref: ObjectRef) -> ObjectRef | None:
    """The folder two levels up, which has all objects of a run: Argo writes <run>/<pod>/<artifact>."""
    folder, *rest = ref.key.rsplit("/", 2)
    return replace(ref, key=f"{folder}/") if rest else None


def _read_digest(stream: IO[bytes]) -> tuple[ObjectVersion, str]:
    """Version and content digest of an object that is being read."""
    etag = str(getattr(stream, "headers", {}).get("ETag", "")).strip('"')
    counted = _CountingStream(stream)
    found = digest.of_tar(counted) if counted.is_tar() else digest.of_stream(counted)  # type: ignore[arg-type]
    counted.drain()
    return ObjectVersion(etag, counted.size), found


class _CountingStream:
    """A stream whose beginning can be looked at before it is read, and that counts its bytes."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._peeked = _read_up_to(stream, _PEEKED_BYTES)
        self.size = len(self._peeked)

    def is_tar(self) -> bool:
        """Whether this is a tar, compressed or not: decided by the content, as Argo does."""
        head = self._peeked
        if head.startswith(_GZIP_MAGIC):
            try:
                head = zlib.decompressobj(wbits=31).decompress(head, _TAR_HEADER_BYTES)
            except zlib.error:
                return False
        return head[257:262] == b"ustar"

    def read(self, size: int = -1) -> bytes:
        """As `IO.read`."""
        if self._peeked:
            chunk = self._peeked if size < 0 else self._peeked[:size]
            self._peeked = self._peeked[len(chunk) :]
            return chunk
        chunk = self._stream.read() if size < 0 else self._stream.read(size)
        self.size += len(chunk)
        return chunk

    def drain(self) -> None:
        """Read to the end: the padding after an archive, which tarfile does not read, counts for the object's size."""
        while self.read(1 << 20):
            pass


def _read_up_to(stream: IO[bytes], size: int) -> bytes:
    """`size` bytes; fewer only at the end of the stream."""
    chunks, missing = [], size
    while missing and (chunk := stream.read(missing)):
        chunks.append(chunk)
        missing -= len(chunk)
    return b"".join(chunks)
