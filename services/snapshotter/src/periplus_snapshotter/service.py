"""What the snapshotter does. Everything outside the process is behind a Protocol here."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol

from periplus_common.errors import Invalid, NotFound
from periplus_snapshotter import checking, comparing
from periplus_snapshotter.domain import Claim, File, Lockfile, Package, Part, Snapshot, Taken


@dataclass(frozen=True)
class Kept:
    """An object in the artifact store as it was when it was written."""

    digest: str
    key: str
    size: int
    etag: str


@dataclass(frozen=True)
class Known:
    """What the record holds of the parts of a new snapshot."""

    blobs: Mapping[str, Kept]
    """By key."""
    locked: tuple[Package, ...] | None
    """What the claim's lockfile pins, where it was read before."""


class Store(Protocol):
    async def taken(self, project: str, snapshot: str, code_key: str) -> tuple[Taken | None, Kept | None]:
        """The snapshot if it is recorded, and the object under `code_key` if it is."""

    async def known(self, lockfile: Lockfile | None, keys: Iterable[str]) -> Known:
        """What is recorded already of a new snapshot's lockfile and objects."""

    async def add(self, snapshot: Snapshot, blobs: Iterable[Kept]) -> Taken:
        """Record a snapshot, with the event that tells of it. The first record of an id stays."""

    async def get(self, project: str, snapshot: str) -> Snapshot | None:
        """A snapshot without the bytes of its parts."""


class Objects(Protocol):
    async def is_there(self, kept: Kept) -> bool:
        """Whether the object can be read and is the one that was written."""

    async def keep(self, key: str, part: Part) -> Kept:
        """Write the part's bytes under `key`, unless they are there."""

    async def read(self, part: Part) -> bytes:
        """The bytes of a part. Raises `NotFound`."""


class Reader(Protocol):
    async def packages(self, name: str, content: bytes) -> tuple[Package, ...]:
        """What a lockfile pins, sorted. Raises `Invalid` where it is not what its name says."""


class Snapshotter:
    """Keeps what runs were made with, by digest."""

    def __init__(self, store: Store, objects: Objects, reader: Reader, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._objects = objects
        self._reader = reader
        self._clock = clock

    async def take(self, project: str, claim: Claim) -> Taken:
        """Keep a claim. One that is known costs one query and one look at its code archive."""
        checking.check(claim)
        claim = claim.in_order()
        code_key = claim.code.code_key if claim.code else ""
        taken, code = await self._store.taken(project, claim.id, code_key)
        code_is_there = code is not None and await self._objects.is_there(code)
        if taken and (not code_key or code_is_there):
            return taken
        keys = [part.key for part in claim.parts]
        known = await self._store.known(claim.lockfile, keys)
        locked = await self._locked(claim.lockfile, known)
        blobs = await self._kept(claim, known)
        if claim.code and not code_is_there:
            blobs.append(await self._objects.keep(code_key, claim.code))
        snapshot = Snapshot(
            project=project,
            claim=claim,
            locked=locked,
            warnings=comparing.warnings(claim, locked),
            taken_at=self._clock(),
            id=claim.id,
            environment=claim.environment,
        )
        return await self._store.add(snapshot, blobs)

    async def _locked(self, lockfile: Lockfile | None, known: Known) -> tuple[Package, ...]:
        if lockfile is None:
            return ()
        if known.locked is not None:
            return known.locked
        try:
            return await self._reader.packages(lockfile.name, lockfile.part.content)
        except Invalid as error:
            raise Invalid(
                f"is no {lockfile.name}: {error.message}",
                field="claim.lockfile.content",
                reason="LOCKFILE_INVALID",
                fix=error.fix,
            ) from error

    async def _kept(self, claim: Claim, known: Known) -> list[Kept]:
        """Write the parts that are not recorded. Of those that are, the few that every look needs are looked at."""
        looked_at = {claim.lockfile.part.key} if claim.lockfile else set()
        if claim.git and claim.git.patch:
            looked_at.add(claim.git.patch.key)

        async def keep(part: Part) -> Kept:
            kept = known.blobs.get(part.key)
            if kept and (part.key not in looked_at or await self._objects.is_there(kept)):
                return kept
            return await self._objects.keep(part.key, part)

        return list(await asyncio.gather(*map(keep, claim.parts)))

    async def get(self, project: str, snapshot: str, *, with_content: bool = False) -> Snapshot:
        """A snapshot, with the bytes of patch, untracked files and lockfile if asked. Raises `NotFound`."""
        found = await self._store.get(project, snapshot)
        if found is None:
            raise NotFound(f"no snapshot {snapshot} in project {project}", field="snapshot")
        if not with_content:
            return found
        return replace(found, claim=await self._filled(found.claim))

    async def _filled(self, claim: Claim) -> Claim:
        async def filled(part: Part) -> Part:
            return replace(part, content=await self._objects.read(part))

        parts = dict(
            zip(
                (part.digest for part in claim.parts),
                await asyncio.gather(*map(filled, claim.parts)),
                strict=True,
            )
        )
        git, lockfile = claim.git, claim.lockfile
        if git:
            patch = git.patch and parts[git.patch.digest]
            untracked = tuple(File(file.path, parts[file.part.digest]) for file in git.untracked)
            git = replace(git, patch=patch, untracked=untracked)
        if lockfile:
            lockfile = replace(lockfile, part=parts[lockfile.part.digest])
        return replace(claim, git=git, lockfile=lockfile)

    async def diff(self, project: str, old: str, new: str) -> list[comparing.Change]:
        """How two snapshots differ, sorted by field. Raises `NotFound`."""
        before, after = await asyncio.gather(self._store.get(project, old), self._store.get(project, new))
        for field, named, found in (("old", old, before), ("new", new, after)):
            if found is None:
                raise NotFound(f"no snapshot {named} in project {project}", field=field)
        assert before is not None
        assert after is not None
        return comparing.changes(before, after)
