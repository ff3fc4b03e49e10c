"""What is recorded of snapshots, lockfiles and objects. With `packages`, all of this service's SQL."""

from collections.abc import Iterable

from periplus_common import bus, outbox
from periplus_common.postgres import Connection, Database, Row
from periplus_snapshotter import packages, wire
from periplus_snapshotter.domain import Claim, File, Git, Lockfile, Part, Platform, Snapshot, Taken
from periplus_snapshotter.service import Kept, Known


class PostgresStore:
    """Snapshots in Postgres. Each method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def taken(self, project: str, snapshot: str, code_key: str) -> tuple[Taken | None, Kept | None]:
        async with self._database.connection() as connection:
            row = await connection.fetchrow(
                """
                SELECT snapshot.id, environment, code_key, warnings, key, digest, size, etag
                FROM (SELECT $1 AS project, $2 AS id) AS asked
                LEFT JOIN snapshot USING (project, id)
                LEFT JOIN blob ON blob.key = $3
                """,
                project,
                snapshot,
                code_key,
            )
        assert row is not None
        return (_taken(row) if row["id"] else None), (_kept(row) if row["key"] else None)

    async def known(self, lockfile: Lockfile | None, keys: Iterable[str]) -> Known:
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                "SELECT key, digest, size, etag FROM blob WHERE key = ANY($1)", list(keys)
            )
            locked = None
            if lockfile:
                found = await connection.fetchval(
                    "SELECT set_id FROM lockfile WHERE name = $1 AND digest = $2",
                    lockfile.name,
                    lockfile.part.digest,
                )
                locked = await packages.get(connection, found) if found else None
        return Known({row["key"]: _kept(row) for row in rows}, locked)

    async def add(self, snapshot: Snapshot, blobs: Iterable[Kept]) -> Taken:
        async with self._database.transaction() as connection:
            await _add_blobs(connection, blobs)
            installed = await packages.add(connection, snapshot.claim.installed)
            locked = await packages.add(connection, snapshot.locked)
            if snapshot.claim.lockfile:
                await connection.execute(
                    """
                    INSERT INTO lockfile (name, digest, set_id) VALUES ($1, $2, $3)
                    ON CONFLICT (name, digest) DO NOTHING
                    """,
                    snapshot.claim.lockfile.name,
                    snapshot.claim.lockfile.part.digest,
                    locked,
                )
            if await _add_snapshot(connection, snapshot, installed, locked):
                await _add_untracked(connection, snapshot)
                message = wire.taken_event(snapshot)
                event = bus.cloud_event(
                    message, project=snapshot.project, run="", key=snapshot.id, at=snapshot.taken_at
                )
                await outbox.add(connection, [event])
            row = await connection.fetchrow(
                "SELECT id, environment, code_key, warnings FROM snapshot WHERE project = $1 AND id = $2",
                snapshot.project,
                snapshot.id,
            )
        assert row is not None
        return _taken(row)

    async def get(self, project: str, snapshot: str) -> Snapshot | None:
        async with self._database.transaction() as connection:
            row = await connection.fetchrow(
                "SELECT * FROM snapshot WHERE project = $1 AND id = $2", project, snapshot
            )
            if row is None:
                return None
            files = await connection.fetch(
                """
                SELECT path, digest, size FROM untracked WHERE project = $1 AND snapshot = $2 ORDER BY path
                """,
                project,
                snapshot,
            )
            installed = await packages.get(connection, row["installed_set"])
            locked = await packages.get(connection, row["locked_set"])
        claim = Claim(
            git=_git(row, files) if row["git_commit"] else None,
            lockfile=_lockfile(row),
            installed=installed,
            platform=Platform(
                row["python_version"], row["python_implementation"], row["system"], row["machine"]
            ),
            code=Part(row["code_digest"], row["code_size"]) if row["code_digest"] else None,
        )
        return Snapshot(
            project, claim, locked, tuple(row["warnings"]), row["taken_at"], row["id"], row["environment"]
        )


def _taken(row: Row) -> Taken:
    return Taken(row["id"], row["environment"], row["code_key"], tuple(row["warnings"]))


def _kept(row: Row) -> Kept:
    return Kept(row["digest"], row["key"], row["size"], row["etag"])


def _git(row: Row, files: list[Row]) -> Git:
    return Git(
        row["git_commit"],
        row["git_branch"],
        row["git_remote"],
        Part(row["patch_digest"], row["patch_size"]) if row["patch_digest"] else None,
        tuple(File(file["path"], Part(file["digest"], file["size"])) for file in files),
    )


def _lockfile(row: Row) -> Lockfile | None:
    if not row["lockfile_digest"]:
        return None
    return Lockfile(row["lockfile_name"], Part(row["lockfile_digest"], row["lockfile_size"]))


async def _add_blobs(connection: Connection, blobs: Iterable[Kept]) -> None:
    """In order of key, so that two that add the same ones wait for each other and never in a circle."""
    listed = sorted({blob.key: blob for blob in blobs}.values(), key=lambda blob: blob.key)
    if not listed:
        return
    await connection.execute(
        """
        INSERT INTO blob (key, digest, size, etag)
        SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::text[])
        ON CONFLICT (key) DO UPDATE SET size = excluded.size, etag = excluded.etag
        WHERE (blob.size, blob.etag) IS DISTINCT FROM (excluded.size, excluded.etag)
        """,
        [blob.key for blob in listed],
        [blob.digest for blob in listed],
        [blob.size for blob in listed],
        [blob.etag for blob in listed],
    )


async def _add_snapshot(connection: Connection, snapshot: Snapshot, installed: int, locked: int) -> bool:
    """Whether it is new."""
    claim = snapshot.claim
    git, lockfile, code = claim.git, claim.lockfile, claim.code
    patch = git.patch if git else None
    values = {
        "project": snapshot.project,
        "id": snapshot.id,
        "environment": snapshot.environment,
        "git_commit": git.commit if git else None,
        "git_branch": git.branch if git else "",
        "git_remote": git.remote if git else "",
        "patch_digest": patch.digest if patch else None,
        "patch_size": patch.size if patch else 0,
        "lockfile_name": lockfile.name if lockfile else None,
        "lockfile_digest": lockfile.part.digest if lockfile else None,
        "lockfile_size": lockfile.part.size if lockfile else 0,
        "code_digest": code.digest if code else None,
        "code_size": code.size if code else 0,
        "code_key": code.code_key if code else "",
        "python_version": claim.platform.python_version,
        "python_implementation": claim.platform.python_implementation,
        "system": claim.platform.system,
        "machine": claim.platform.machine,
        "installed_set": installed,
        "locked_set": locked,
        "warnings": list(snapshot.warnings),
        "taken_at": snapshot.taken_at,
    }
    places = ", ".join(f"${n}" for n in range(1, len(values) + 1))
    added = await connection.fetchval(
        f"INSERT INTO snapshot ({', '.join(values)}) VALUES ({places}) "
        "ON CONFLICT (project, id) DO NOTHING RETURNING id",
        *values.values(),
    )
    return added is not None


async def _add_untracked(connection: Connection, snapshot: Snapshot) -> None:
    files = snapshot.claim.git.untracked if snapshot.claim.git else ()
    if not files:
        return
    await connection.execute(
        """
        INSERT INTO untracked (project, snapshot, path, digest, size)
        SELECT $1, $2, path, digest, size FROM unnest($3::bytea[], $4::text[], $5::bigint[])
            AS file (path, digest, size)
        """,
        snapshot.project,
        snapshot.id,
        [file.path for file in files],
        [file.part.digest for file in files],
        [file.part.size for file in files],
    )
