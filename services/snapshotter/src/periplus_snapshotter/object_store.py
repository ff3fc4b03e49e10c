"""The artifact repository: blobs of claims under keys that contain their digests."""

import hashlib

from periplus_common.blobs import Blobs, ObjectRef, Stat
from periplus_common.errors import NotFound, Unavailable
from periplus_snapshotter.snapshots.claim import Blob
from periplus_snapshotter.snapshots.snapshot import StoredObject


class S3ObjectStore:
    """Implements `ObjectStore` in the default bucket."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs

    async def is_unchanged(self, stored: StoredObject) -> bool:
        """Whether the object is still the one that was written. One HEAD request."""
        found = await self._blobs.stat(ObjectRef(stored.key))
        return found is not None and (found.etag, found.size) == (stored.etag, stored.size_bytes)

    async def write(self, key: str, blob: Blob) -> StoredObject:
        """Write the blob unless the object has its content already. Of concurrent writers, the first wins."""
        ref = ObjectRef(key)
        is_new = await self._blobs.put_new(ref, blob.content)
        found = await self._blobs.stat(ref)
        if not is_new and not _has_content(found, blob):
            # The key is computed from the content, so another content is damaged.
            await self._blobs.put(ref, blob.content)
            found = await self._blobs.stat(ref)
        if found is None or found.size != blob.size_bytes:
            raise Unavailable(f"the object store did not store {key} as it was sent")
        return StoredObject(digest=blob.digest, key=key, size_bytes=found.size, etag=found.etag)

    async def delete(self, key: str) -> None:
        """Delete an object, if there is one."""
        await self._blobs.delete(ObjectRef(key))

    async def read(self, blob: Blob) -> bytes:
        """The content of a blob, verified. Raises `NotFound`."""
        content = await self._blobs.get(ObjectRef(blob.key))
        if Blob.of(content).digest != blob.digest:
            raise NotFound(f"{blob.key} does not have the content that was written to it")
        return content


def _has_content(found: Stat | None, blob: Blob) -> bool:
    # The ETag of an object that was uploaded in one part is its MD5, in S3 and in compatible stores.
    etag = hashlib.md5(blob.content, usedforsecurity=False).hexdigest()
    return found is not None and (found.etag, found.size) == (etag, blob.size_bytes)
