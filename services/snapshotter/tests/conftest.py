"""Fakes in memory, and databases on the embedded servers."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from periplus_common import postgres
from periplus_common.errors import NotFound
from periplus_local.stack.testing import Servers, database, embedded
from periplus_snapshotter.lockfiles.formats import parse_lockfile
from periplus_snapshotter.service import Snapshotter
from periplus_snapshotter.snapshots.claim import (
    Blob,
    Claim,
    File,
    GitState,
    LibraryTemplate,
    Lockfile,
    OmittedFile,
    Package,
    Platform,
)
from periplus_snapshotter.snapshots.snapshot import Snapshot, StoredContent, StoredObject, TakenSnapshot
from periplus_snapshotter.store.snapshots import PostgresSnapshots

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
        self.objects: dict[str, StoredObject] = {}
        self.locked: dict[tuple[str, str], tuple[Package, ...]] = {}
        self.calls: list[str] = []

    async def find(self, project, snapshot, code_key):
        self.calls.append("find")
        found = self.snapshots.get((project, snapshot))
        return (_taken_snapshot(found) if found else None), self.objects.get(code_key)

    async def stored_content(self, lockfile, keys):
        self.calls.append("stored_content")
        locked = self.locked.get((lockfile.name, lockfile.blob.digest)) if lockfile else None
        return StoredContent({key: self.objects[key] for key in keys if key in self.objects}, locked)

    async def add(self, snapshot, objects):
        self.calls.append("add")
        self.objects |= {stored.key: stored for stored in objects}
        if lockfile := snapshot.claim.lockfile:
            self.locked[lockfile.name, lockfile.blob.digest] = snapshot.locked
        return _taken_snapshot(
            self.snapshots.setdefault((snapshot.project, snapshot.id), without_content(snapshot))
        )

    async def get(self, project, snapshot):
        return self.snapshots.get((project, snapshot))


def _taken_snapshot(snapshot: Snapshot) -> TakenSnapshot:
    code_archive = snapshot.claim.code_archive
    code_key = code_archive.code_key(snapshot.project) if code_archive else ""
    return TakenSnapshot(snapshot.id, snapshot.environment, code_key, snapshot.warnings)


class MemoryObjects:
    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.writes: list[str] = []
        self.checks: list[str] = []

    async def is_unchanged(self, stored: StoredObject) -> bool:
        self.checks.append(stored.key)
        return stored.key in self.objects

    async def write(self, key: str, blob: Blob) -> StoredObject:
        self.writes.append(key)
        self.objects[key] = blob.content
        return StoredObject(blob.digest, key, blob.size_bytes, "etag")

    async def read(self, blob: Blob) -> bytes:
        if blob.key not in self.objects:
            raise NotFound(f"no object {blob.key}")
        return self.objects[blob.key]


class CountingParser:
    def __init__(self) -> None:
        self.parsed = 0

    async def parse(self, name: str, content: bytes) -> tuple[Package, ...]:
        self.parsed += 1
        return tuple(Package(n, v, tuple(h)) for n, v, h in parse_lockfile(name, content))


def without_content(snapshot: Snapshot) -> Snapshot:
    """As a database returns it: without contents, and with the untracked files in the order of their paths."""

    def empty(blob: Blob | None) -> Blob | None:
        return blob and replace(blob, content=b"")

    claim = snapshot.claim
    git = claim.git
    if git:
        files = tuple(replace(f, blob=empty(f.blob)) for f in sorted(git.untracked, key=lambda f: f.path))
        git = replace(git, patch=empty(git.patch), untracked=files)
    lockfile = claim.lockfile and replace(claim.lockfile, blob=empty(claim.lockfile.blob))
    templates = tuple(replace(template, blob=empty(template.blob)) for template in claim.templates)
    code = empty(claim.code_archive)
    return replace(
        snapshot, claim=replace(claim, git=git, lockfile=lockfile, code_archive=code, templates=templates)
    )


@pytest.fixture
def objects() -> MemoryObjects:
    return MemoryObjects()


@pytest.fixture
def parser() -> CountingParser:
    return CountingParser()


@pytest.fixture
async def dsn(embedded: Servers) -> AsyncIterator[str]:
    """A database with the snapshotter's tables, which are empty."""
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
            yield PostgresSnapshots(opened)


@pytest.fixture
def snapshotter(objects: MemoryObjects, parser: CountingParser) -> Snapshotter:
    return Snapshotter(MemoryStore(), objects, parser, lambda: NOW)


@pytest.fixture
def claim() -> Claim:
    """A claim with every field."""
    claim = Claim(
        git=GitState(
            commit="a" * 40,
            branch="main",
            remote="ssh://git@code.example/team/project.git",
            patch=Blob.of(b"--- a\n+++ b\n"),
            untracked=(
                File("größe\n.txt".encode(), Blob.of(b"")),
                File(b"new file.txt", Blob.of(b"new")),
                File(b"raw\xff\\", Blob.of(b"\x00\xff")),
            ),
        ),
        lockfile=Lockfile("uv.lock", Blob.of(UV_LOCK)),
        installed=(Package("numpy", "2.0.1"), Package("pip", "26.0"), Package("stray", "0.1")),
        platform=Platform("3.11.7", "CPython", "Linux", "x86_64"),
        code_archive=Blob.of(b"\x1f\x8bcode"),
        templates=(
            LibraryTemplate("WorkflowTemplate/train", Blob.of(b'{"spec": {}}')),
            LibraryTemplate("ClusterWorkflowTemplate/train", Blob.of(b"{}")),
        ),
        omitted=(
            OmittedFile(b"model\xff.bin", "20000000 bytes are too many"),
            OmittedFile(b"nested/", "not read"),
        ),
    )
    return claim.canonical()
