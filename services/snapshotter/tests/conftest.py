"""Fakes and fixtures of the snapshotter's tests."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from periplus_common import postgres
from periplus_common.errors import NotFound
from periplus_local.stack.testing import Servers, database, embedded
from periplus_snapshotter.domain import Claim, File, Git, Lockfile, Package, Part, Platform, Snapshot, Taken
from periplus_snapshotter.lockfiles import reading
from periplus_snapshotter.service import Kept, Known, Snapshotter
from periplus_snapshotter.store import PostgresStore

__all__ = ["embedded"]

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)

UV_LOCK = b"""\
version = 1
revision = 3
requires-python = ">=3.11"

[[package]]
name = "Numpy"
version = "2.1.0"
source = { registry = "https://index.example/simple" }
sdist = { url = "https://files.example/numpy.tar.gz", hash = "sha256:%s", size = 1 }
wheels = [
    { url = "https://files.example/numpy.whl", hash = "sha256:%s", size = 1 },
]

[[package]]
name = "project"
source = { editable = "." }
""" % (b"a" * 64, b"b" * 64)


class MemoryStore:
    def __init__(self) -> None:
        self.snapshots: dict[tuple[str, str], Snapshot] = {}
        self.blobs: dict[str, Kept] = {}
        self.locked: dict[tuple[str, str], tuple[Package, ...]] = {}
        self.calls: list[str] = []

    async def taken(self, project, snapshot, code_key):
        self.calls.append("taken")
        found = self.snapshots.get((project, snapshot))
        return (self._taken(found) if found else None), self.blobs.get(code_key)

    async def known(self, lockfile, keys):
        self.calls.append("known")
        locked = self.locked.get((lockfile.name, lockfile.part.digest)) if lockfile else None
        return Known({key: self.blobs[key] for key in keys if key in self.blobs}, locked)

    async def add(self, snapshot, blobs):
        self.calls.append("add")
        self.blobs |= {blob.key: blob for blob in blobs}
        if lockfile := snapshot.claim.lockfile:
            self.locked[lockfile.name, lockfile.part.digest] = snapshot.locked
        return self._taken(self.snapshots.setdefault((snapshot.project, snapshot.id), bare(snapshot)))

    async def get(self, project, snapshot):
        return self.snapshots.get((project, snapshot))

    def _taken(self, snapshot: Snapshot) -> Taken:
        code = snapshot.claim.code
        return Taken(snapshot.id, snapshot.environment, code.code_key if code else "", snapshot.warnings)


class MemoryObjects:
    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.writes: list[str] = []
        self.looks: list[str] = []

    async def is_there(self, kept: Kept) -> bool:
        self.looks.append(kept.key)
        return kept.key in self.objects

    async def keep(self, key: str, part: Part) -> Kept:
        self.writes.append(key)
        self.objects[key] = part.content
        return Kept(part.digest, key, part.size, "etag")

    async def read(self, part: Part) -> bytes:
        if part.key not in self.objects:
            raise NotFound(f"no object {part.key}")
        return self.objects[part.key]


class CountingReader:
    def __init__(self) -> None:
        self.read = 0

    async def packages(self, name: str, content: bytes) -> tuple[Package, ...]:
        self.read += 1
        return tuple(Package(n, v, tuple(h)) for n, v, h in reading.packages(name, content))


def bare(snapshot: Snapshot) -> Snapshot:
    """Without the bytes, as a database holds it, and with the untracked files in order of path."""

    def empty(part: Part | None) -> Part | None:
        return part and replace(part, content=b"")

    claim = snapshot.claim
    git = claim.git
    if git:
        files = tuple(File(f.path, empty(f.part)) for f in sorted(git.untracked, key=lambda f: f.path))
        git = replace(git, patch=empty(git.patch), untracked=files)
    lockfile = claim.lockfile and replace(claim.lockfile, part=empty(claim.lockfile.part))
    return replace(snapshot, claim=replace(claim, git=git, lockfile=lockfile, code=empty(claim.code)))


@pytest.fixture
def objects() -> MemoryObjects:
    return MemoryObjects()


@pytest.fixture
def reader() -> CountingReader:
    return CountingReader()


@pytest.fixture
async def dsn(embedded: Servers) -> AsyncIterator[str]:
    """A fresh database with the snapshotter's schema."""
    async with database(embedded) as name:
        await postgres.migrate(name, "periplus_common", "periplus_snapshotter")
        yield name


@pytest.fixture(params=["memory", "postgres"])
async def store(request: pytest.FixtureRequest, embedded: Servers) -> AsyncIterator[object]:
    if request.param == "memory":
        yield MemoryStore()
        return
    async with database(embedded) as name:
        await postgres.migrate(name, "periplus_common", "periplus_snapshotter")
        async with postgres.database(name) as opened:
            yield PostgresStore(opened)


@pytest.fixture
def snapshotter(objects: MemoryObjects, reader: CountingReader) -> Snapshotter:
    return Snapshotter(MemoryStore(), objects, reader, lambda: NOW)


@pytest.fixture
def claim() -> Claim:
    """A claim with everything in it."""
    claim = Claim(
        git=Git(
            commit="a" * 40,
            branch="main",
            remote="ssh://git@code.example/team/project.git",
            patch=Part.of(b"--- a\n+++ b\n"),
            untracked=(
                File("größe\n.txt".encode(), Part.of_file(b"")),
                File(b"new file.txt", Part.of_file(b"new")),
                File(b"raw\xff\\", Part.of_file(b"\x00\xff")),
            ),
        ),
        lockfile=Lockfile("uv.lock", Part.of_file(UV_LOCK)),
        installed=(Package("numpy", "2.0.1"), Package("pip", "26.0"), Package("stray", "0.1")),
        platform=Platform("3.11.7", "CPython", "Linux", "x86_64"),
        code=Part.of(b"\x1f\x8bcode"),
    )
    return claim.in_order()
