"""The artifact store: parts of claims under keys that are made of their digests."""

import hashlib

from periplus_common.blobs import Blobs, Place, Stat
from periplus_common.errors import NotFound, Unavailable
from periplus_snapshotter.domain import Part
from periplus_snapshotter.service import Kept


class S3Objects:
    """Objects in the default bucket."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs

    async def is_there(self, kept: Kept) -> bool:
        """One HEAD: whether the object is still the one that was written."""
        found = await self._blobs.stat(Place(kept.key))
        return found is not None and (found.etag, found.size) == (kept.etag, kept.size)

    async def keep(self, key: str, part: Part) -> Kept:
        """The first of many writers wins. What lies there and is not these bytes is written over."""
        place = Place(key)
        new = await self._blobs.put_new(place, part.content)
        found = await self._blobs.stat(place)
        if not new and not _is_as_written(found, part):
            # A key names its content, so anything else under it is damage.
            await self._blobs.put(place, part.content)
            found = await self._blobs.stat(place)
        if found is None or found.size != part.size:
            raise Unavailable(f"the object store did not keep {key}")
        return Kept(part.digest, key, found.size, found.etag)

    async def read(self, part: Part) -> bytes:
        """The bytes of a part, verified. Raises `NotFound`."""
        content = await self._blobs.get(Place(part.key))
        if Part.of_file(content).digest != part.digest:
            raise NotFound(f"{part.key} does not hold what was written there")
        return content


def _is_as_written(found: Stat | None, part: Part) -> bool:
    # The ETag of an object that was written whole is its MD5, in S3 and in what stands in for it.
    etag = hashlib.md5(part.content, usedforsecurity=False).hexdigest()
    return found is not None and (found.etag, found.size) == (etag, part.size)
