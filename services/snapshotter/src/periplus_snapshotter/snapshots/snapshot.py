"""A stored claim, and the objects in the artifact repository that hold its parts."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from periplus_snapshotter.snapshots.claim import Claim, Package


@dataclass(frozen=True)
class Snapshot:
    """A stored claim, with the packages that its lockfile pins."""

    project: str
    id: str
    environment: str
    claim: Claim
    locked: tuple[Package, ...]
    warnings: tuple[str, ...]
    taken_at: datetime


@dataclass(frozen=True)
class TakenSnapshot:
    """The answer to TakeSnapshot. `code_key` is empty without a code archive."""

    id: str
    environment: str
    code_key: str
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class StoredObject:
    """An object in the artifact repository as it was when it was written."""

    digest: str
    key: str
    size_bytes: int
    etag: str


@dataclass(frozen=True)
class StoredContent:
    """What is stored already of the content of a new snapshot."""

    objects: Mapping[str, StoredObject]
    """By key."""
    locked: tuple[Package, ...] | None
    """The packages that the claim's lockfile pins; None if it was not parsed before."""
