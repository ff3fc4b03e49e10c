"""Takes, returns and compares snapshots. Everything outside the process is behind a Protocol here."""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime
from typing import Protocol

from periplus_common.errors import Invalid, NotFound
from periplus_snapshotter.snapshots.claim import Blob, Claim, Lockfile, Package
from periplus_snapshotter.snapshots.diff import SnapshotChange, diff_snapshots
from periplus_snapshotter.snapshots.snapshot import Snapshot, StoredContent, StoredObject, TakenSnapshot
from periplus_snapshotter.snapshots.validation import validate_claim
from periplus_snapshotter.snapshots.warnings import claim_warnings


class SnapshotStore(Protocol):
    async def find(
        self, project: str, snapshot: str, code_key: str
    ) -> tuple[TakenSnapshot | None, StoredObject | None]:
        """The snapshot and the object with the key `code_key`, each if it is stored."""

    async def stored_content(self, lockfile: Lockfile | None, keys: Iterable[str]) -> StoredContent:
        """What is stored already of a new snapshot's lockfile and objects."""

    async def add(self, snapshot: Snapshot, objects: Iterable[StoredObject]) -> TakenSnapshot:
        """Store a snapshot and queue its event. If the id is stored already, that snapshot stays as it is."""

    async def get(self, project: str, snapshot: str) -> Snapshot | None:
        """A snapshot without the contents of its blobs."""


class ObjectStore(Protocol):
    async def is_unchanged(self, stored: StoredObject) -> bool:
        """Whether the object can be read and is still the one that was written."""

    async def write(self, key: str, blob: Blob) -> StoredObject:
        """Write the blob unless the object has its content already."""

    async def read(self, blob: Blob) -> bytes:
        """The content of a blob. Raises `NotFound`."""


class LockfileParser(Protocol):
    async def parse(self, name: str, content: bytes) -> tuple[Package, ...]:
        """The packages that a lockfile pins, sorted. Raises `Invalid` if it is not in the format of its name."""


class Snapshotter:
    """Takes, returns and compares snapshots."""

    def __init__(
        self,
        store: SnapshotStore,
        objects: ObjectStore,
        parser: LockfileParser,
        clock: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._objects = objects
        self._parser = parser
        self._clock = clock

    async def take(self, project: str, claim: Claim) -> TakenSnapshot:
        """Store a claim. One that is stored already costs one query and one HEAD request for its code archive."""
        validate_claim(claim)
        claim = claim.canonical()
        code_key = claim.code_archive.code_key(project) if claim.code_archive else ""
        taken, code_object = await self._store.find(project, claim.id, code_key)
        code_is_stored = code_object is not None and await self._objects.is_unchanged(code_object)
        if taken and (not code_key or code_is_stored):
            return taken
        keys = [blob.key for blob in claim.blobs]
        stored = await self._store.stored_content(claim.lockfile, [*keys, code_key] if code_key else keys)
        locked = await self._parse_lockfile(claim.lockfile, stored)
        objects = await self._write_blobs(claim, stored)
        # It may have been deleted between the two queries.
        if claim.code_archive and not (code_is_stored and code_key in stored.objects):
            objects.append(await self._objects.write(code_key, claim.code_archive))
        snapshot = Snapshot(
            project=project,
            id=claim.id,
            environment=claim.environment,
            claim=claim,
            locked=locked,
            warnings=claim_warnings(claim, locked),
            taken_at=self._clock(),
        )
        return await self._store.add(snapshot, objects)

    async def _parse_lockfile(self, lockfile: Lockfile | None, stored: StoredContent) -> tuple[Package, ...]:
        if lockfile is None:
            return ()
        if stored.locked is not None:
            return stored.locked
        try:
            return await self._parser.parse(lockfile.name, lockfile.blob.content)
        except Invalid as error:
            raise Invalid(
                f"is not a valid {lockfile.name}: {error.message}",
                field="claim.lockfile.content",
                reason="LOCKFILE_INVALID",
                fix=error.fix,
            ) from error

    async def _write_blobs(self, claim: Claim, stored: StoredContent) -> list[StoredObject]:
        """Write the blobs that are not stored. Of those that are, only lockfile and patch are checked: two requests."""
        checked = {claim.lockfile.blob.key} if claim.lockfile else set()
        if claim.git and claim.git.patch:
            checked.add(claim.git.patch.key)

        async def write(blob: Blob) -> StoredObject:
            present = stored.objects.get(blob.key)
            if present and (blob.key not in checked or await self._objects.is_unchanged(present)):
                return present
            return await self._objects.write(blob.key, blob)

        return list(await asyncio.gather(*map(write, claim.blobs)))

    async def get(self, project: str, snapshot: str, *, with_content: bool = False) -> Snapshot:
        """A snapshot; with the contents of patch, untracked files and lockfile if asked for. Raises `NotFound`."""
        found = await self._get(project, snapshot, "snapshot")
        return replace(found, claim=await self._with_content(found.claim)) if with_content else found

    async def _with_content(self, claim: Claim) -> Claim:
        contents = await asyncio.gather(*map(self._objects.read, claim.blobs))
        blobs = {
            blob.digest: replace(blob, content=content)
            for blob, content in zip(claim.blobs, contents, strict=True)
        }
        git, lockfile = claim.git, claim.lockfile
        if git:
            patch = git.patch and blobs[git.patch.digest]
            untracked = tuple(replace(file, blob=blobs[file.blob.digest]) for file in git.untracked)
            git = replace(git, patch=patch, untracked=untracked)
        if lockfile:
            lockfile = replace(lockfile, blob=blobs[lockfile.blob.digest])
        templates = tuple(replace(each, blob=blobs[each.blob.digest]) for each in claim.templates)
        return replace(claim, git=git, lockfile=lockfile, templates=templates)

    async def diff(self, project: str, old: str, new: str) -> list[SnapshotChange]:
        """The differences of two snapshots, sorted by field. Raises `NotFound`."""
        old_snapshot = await self._get(project, old, "old")
        return diff_snapshots(old_snapshot, await self._get(project, new, "new"))

    async def _get(self, project: str, snapshot: str, field: str) -> Snapshot:
        found = await self._store.get(project, snapshot)
        if found is None:
            raise NotFound(f"the project {project} has no snapshot {snapshot}", field=field)
        return found
