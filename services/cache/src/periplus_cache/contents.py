"""Content digests of objects: read once, remembered by place, ETag and size."""

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from periplus_cache.domain import Place, Stat
from periplus_cache.ports import Objects, Seen, Store
from periplus_cache.values import Unreadable
from periplus_common.errors import Invalid, NotFound

READERS = 6  # objects read at the same time, of the 16 requests that the store's client has under way


@dataclass(frozen=True, slots=True)
class Read:
    """An object with its content digest."""

    digest: str
    stat: Stat


class Contents:
    """Finds the digests of objects. An object that many ask for at once is read once."""

    def __init__(self, store: Store, objects: Objects) -> None:
        self._store = store
        self._objects = objects
        self._reading: dict[Seen, asyncio.Task[tuple[Seen, str]]] = {}
        # Reading takes long, and must leave connections for those who only look whether an object is there.
        self._readers = asyncio.Semaphore(READERS)

    async def of(self, places: Collection[Place]) -> Mapping[Place, Read | Unreadable]:
        """The contents of each object. Raises `Unavailable` where the store or the record is away."""
        if not places:
            return {}
        found_stats = await self._objects.stat_many(places)
        stats = {place: stat for place, stat in found_stats.items() if stat is not None}
        seen = {
            place: Seen(self._objects.absolute(place), stat.etag, stat.size) for place, stat in stats.items()
        }
        digests = await self._store.digests(set(seen.values())) if seen else {}
        fresh = [place for place, what in seen.items() if what not in digests]
        read = dict(
            zip(fresh, await asyncio.gather(*(self._read(p, seen[p], stats[p]) for p in fresh)), strict=True)
        )
        found: dict[Place, Read | Unreadable] = {}
        for place in places:
            if place not in stats:
                found[place] = Unreadable(f"there is no object {place.key} that can be read here")
            elif place in read:
                found[place] = read[place]
            else:
                found[place] = Read(digests[seen[place]], stats[place])
        return found

    async def _read(self, place: Place, seen: Seen, stat: Stat) -> Read | Unreadable:
        task = self._reading.get(seen)
        if task is None:
            task = self._reading[seen] = asyncio.create_task(self._digest(place))
            task.add_done_callback(lambda _: self._reading.pop(seen, None))
        try:
            came, digest = await asyncio.shield(task)
        except NotFound:
            return Unreadable(f"there is no object {place.key} that can be read here")
        except Invalid as error:
            return Unreadable(f"the object {place.key} can not be digested: {error.message}")
        if came.etag != seen.etag:
            return Unreadable(f"the object {place.key} changed while it was read")
        return Read(digest, stat)

    async def _digest(self, place: Place) -> tuple[Seen, str]:
        async with self._readers:
            seen, digest = await self._objects.digest(place)
        await self._store.remember({seen: digest})
        return seen, digest
