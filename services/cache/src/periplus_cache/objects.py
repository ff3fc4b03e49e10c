"""Objects in S3: whether they are there, and the content digests of what Argo puts there."""

import asyncio
import zlib
from collections import Counter
from collections.abc import Collection, Mapping
from typing import IO

from periplus_cache.domain import Place, Stat
from periplus_cache.ports import Seen
from periplus_common import digest
from periplus_common.blobs import Blobs
from periplus_common.blobs import Place as BlobPlace
from periplus_common.errors import NotFound

LISTED = 12  # objects in a folder from which on listing it is cheaper than looking at each
STRANGERS = 4  # how many more objects may be listed than are asked for, such as the logs beside the artifacts

_BLOCK = 512  # bytes of a tar header
_GZIP = b"\x1f\x8b"
_PEEKED = 64 << 10  # enough of a compressed stream to see the first header


class S3Objects:
    """The object store, as `ports` asks for it."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs

    def absolute(self, place: Place) -> Place:
        """The place with the default store's names filled in."""
        return Place(place.key, place.bucket or self._blobs.bucket, place.endpoint or self._blobs.endpoint)

    async def stat_many(self, places: Collection[Place]) -> Mapping[Place, Stat | None]:
        """What the store says of each object; None where it has none, or is a store that is not ours to read."""
        wanted = list(places)
        return dict(zip(wanted, await asyncio.gather(*map(self._stat, wanted)), strict=True))

    async def changed(self, held: Mapping[Place, Stat]) -> Mapping[Place, Stat | None]:
        """Those of these places that do not hold any more what they held, by tag and size, and what they hold now.

        Where many lie together, one listing says of most that they are as they were; the others are looked at.
        """
        listed = await self._listed(held)
        doubtful = [place for place, stat in held.items() if not _same(listed.get(place), stat)]
        stats = await self.stat_many(doubtful)
        return {place: stat for place, stat in stats.items() if not _same(stat, held[place])}

    async def _listed(self, places: Collection[Place]) -> Mapping[Place, Stat]:
        folders = Counter(folder for place in places if (folder := _folder(place)) is not None)
        lists = await asyncio.gather(
            *(
                self._blobs.below(folder, STRANGERS * count)
                for folder, count in folders.items()
                if count >= LISTED and folder.endpoint in ("", self._blobs.endpoint)
            )
        )
        return {
            Place(place.key, place.bucket, place.endpoint): Stat(stat.etag, stat.size, stat.modified)
            for found in lists
            for place, stat in found.items()
        }

    async def digest(self, place: Place) -> tuple[Seen, str]:
        """Read an object to its end in a thread: what was read, and its content digest.

        Raises `NotFound` where there is none, `Invalid` where it has no content digest.
        """
        etag, size, found = await self._blobs.read(_blob(place), _digest)
        return Seen(self.absolute(place), etag, size), found

    async def _stat(self, place: Place) -> Stat | None:
        try:
            found = await self._blobs.stat(_blob(place))
        except NotFound:
            return None
        return None if found is None else Stat(found.etag, found.size, found.modified)


def _folder(place: Place) -> BlobPlace | None:
    """The folder above the object's own, where all of a run lies: Argo writes <run>/<pod>/<artifact>."""
    pieces = place.key.rsplit("/", 2)
    return BlobPlace(pieces[0] + "/", place.bucket, place.endpoint) if len(pieces) > 1 else None


def _same(one: Stat | None, other: Stat) -> bool:
    return one is not None and (one.etag, one.size) == (other.etag, other.size)


def _blob(place: Place) -> BlobPlace:
    return BlobPlace(place.key, place.bucket, place.endpoint)


def _digest(stream: IO[bytes]) -> tuple[str, int, str]:
    """ETag, size and content digest of an object that is being read."""
    etag = str(getattr(stream, "headers", {}).get("ETag", "")).strip('"')
    counted = _Counted(stream)
    found = digest.of_tar(counted) if counted.is_tar() else digest.of_stream(counted)  # type: ignore[arg-type]
    counted.drain()
    return etag, counted.size, found


class _Counted:
    """A stream that can be looked into before it is read, and that knows how much it has given."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._peeked = _full(stream, _PEEKED)
        self.size = len(self._peeked)

    def is_tar(self) -> bool:
        """Whether this is a tar, compressed or not: told by the contents, as Argo tells it."""
        head = self._peeked
        if head.startswith(_GZIP):
            try:
                head = zlib.decompressobj(wbits=31).decompress(head, _BLOCK)
            except zlib.error:
                return False
        return head[257:262] == b"ustar"

    def read(self, size: int = -1) -> bytes:
        """As of any stream."""
        if self._peeked:
            given = self._peeked if size < 0 else self._peeked[:size]
            self._peeked = self._peeked[len(given) :]
            return given
        given = self._stream.read() if size < 0 else self._stream.read(size)
        self.size += len(given)
        return given

    def drain(self) -> None:
        """Read what a reader left: padding after the end of an archive belongs to the object's size."""
        while self.read(1 << 20):
            pass


def _full(stream: IO[bytes], size: int) -> bytes:
    """Up to `size` bytes; fewer only at the end."""
    pieces, missing = [], size
    while missing and (piece := stream.read(missing)):
        pieces.append(piece)
        missing -= len(piece)
    return b"".join(pieces)
