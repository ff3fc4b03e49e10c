"""Snapshots, the lockfiles that were parsed, and the objects that were written."""

from collections.abc import Iterable

from periplus_common import bus, outbox, telemetry
from periplus_common.postgres import Connection, Database, Row
from periplus_snapshotter import wire
from periplus_snapshotter.snapshots.claim import (
    Blob,
    Claim,
    File,
    GitState,
    LibraryTemplate,
    Lockfile,
    OmittedFile,
    Platform,
)
from periplus_snapshotter.snapshots.snapshot import Snapshot, StoredContent, StoredObject, TakenSnapshot
from periplus_snapshotter.store.packages import add_package_set, get_packages

_stored_snapshots = telemetry.counter(
    "periplus.snapshotter.snapshots",
    unit="{snapshot}",
    description="Snapshots that were stored for the first time.",
)


class PostgresSnapshots:
    """Implements `SnapshotStore`. Each method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(
        self, project: str, snapshot: str, code_key: str
    ) -> tuple[TakenSnapshot | None, StoredObject | None]:
        async with self._database.connection() as connection:
            row = await connection.fetchrow(
                """
                SELECT snapshot.id, environment, code_key, warnings, key, digest, size_bytes, etag,
                    last_taken_at < now() - interval '1 hour' AS must_be_touched
                FROM (SELECT $1 AS project, $2 AS id) AS query
                LEFT JOIN snapshot USING (project, id)
                LEFT JOIN stored_object ON stored_object.key = $3 AND etag <> ''
                """,
                project,
                snapshot,
                code_key,
            )
            assert row is not None
            exists = row["id"] is not None
            if row["must_be_touched"]:
                exists = await _touch(connection, project, snapshot)
        return (_taken_snapshot(row) if exists else None), (_stored_object(row) if row["key"] else None)

    async def stored_content(self, lockfile: Lockfile | None, keys: Iterable[str]) -> StoredContent:
        listed = list(keys)
        async with self._database.connection() as connection:
            # Retention deletes no object that was used lately, and this waits for one that it is deleting.
            await connection.execute(
                "UPDATE stored_object SET used_at = now() WHERE key = ANY($1) AND used_at < now() - interval '1 hour'",
                listed,
            )
            rows = await connection.fetch(
                "SELECT key, digest, size_bytes, etag FROM stored_object WHERE key = ANY($1) AND etag <> ''",
                listed,
            )
            locked = None
            if lockfile:
                set_id = await connection.fetchval(
                    "SELECT set_id FROM lockfile WHERE name = $1 AND digest = $2",
                    lockfile.name,
                    lockfile.blob.digest,
                )
                locked = await get_packages(connection, set_id) if set_id else None
        return StoredContent({row["key"]: _stored_object(row) for row in rows}, locked)

    async def add(self, snapshot: Snapshot, objects: Iterable[StoredObject]) -> TakenSnapshot:
        async with self._database.transaction() as connection:
            await _add_objects(connection, objects)
            installed = await add_package_set(connection, snapshot.claim.installed)
            locked = await add_package_set(connection, snapshot.locked)
            if snapshot.claim.lockfile:
                await connection.execute(
                    """
                    INSERT INTO lockfile (name, digest, set_id) VALUES ($1, $2, $3)
                    ON CONFLICT (name, digest) DO NOTHING
                    """,
                    snapshot.claim.lockfile.name,
                    snapshot.claim.lockfile.blob.digest,
                    locked,
                )
            is_new = await _add_snapshot(connection, snapshot, installed, locked)
            if is_new:
                await _add_untracked_files(connection, snapshot)
                await _add_templates(connection, snapshot)
                await _add_omitted(connection, snapshot)
                event = bus.cloud_event(
                    wire.encode_snapshot_taken(snapshot),
                    project=snapshot.project,
                    run="",
                    key=snapshot.id,
                    at=snapshot.taken_at,
                )
                await outbox.add(connection, [event])
            row = await connection.fetchrow(
                "SELECT id, environment, code_key, warnings FROM snapshot WHERE project = $1 AND id = $2",
                snapshot.project,
                snapshot.id,
            )
        assert row is not None
        _stored_snapshots.add(int(is_new))
        return _taken_snapshot(row)

    async def get(self, project: str, snapshot: str) -> Snapshot | None:
        async with self._database.transaction() as connection:
            row = await connection.fetchrow(
                "SELECT * FROM snapshot WHERE project = $1 AND id = $2", project, snapshot
            )
            if row is None:
                return None
            files = await connection.fetch(
                """
                SELECT path, digest, size_bytes, executable FROM untracked_file
                WHERE project = $1 AND snapshot = $2 ORDER BY path
                """,
                project,
                snapshot,
            )
            templates = await connection.fetch(
                """
                SELECT name, digest, size_bytes FROM library_template
                WHERE project = $1 AND snapshot = $2 ORDER BY name
                """,
                project,
                snapshot,
            )
            omitted = await connection.fetch(
                "SELECT path, reason FROM omitted_file WHERE project = $1 AND snapshot = $2 ORDER BY path",
                project,
                snapshot,
            )
            installed = await get_packages(connection, row["installed_set"])
            locked = await get_packages(connection, row["locked_set"])
        claim = Claim(
            git=_git_state(row, files) if row["git_commit"] else None,
            lockfile=_lockfile(row),
            installed=installed,
            platform=Platform(
                python_version=row["python_version"],
                python_implementation=row["python_implementation"],
                system=row["system"],
                machine=row["machine"],
            ),
            code_archive=_blob(row, "code"),
            templates=tuple(
                LibraryTemplate(each["name"], Blob(each["digest"], each["size_bytes"])) for each in templates
            ),
            omitted=tuple(OmittedFile(each["path"], each["reason"]) for each in omitted),
        )
        return Snapshot(
            project=project,
            id=row["id"],
            environment=row["environment"],
            claim=claim,
            locked=locked,
            warnings=tuple(row["warnings"]),
            taken_at=row["taken_at"],
        )


async def _touch(connection: Connection, project: str, snapshot: str) -> bool:
    """Keep retention from deleting the snapshot. Returns False if it did already."""
    touched = await connection.execute(
        "UPDATE snapshot SET last_taken_at = now() WHERE project = $1 AND id = $2", project, snapshot
    )
    return touched != "UPDATE 0"


def _taken_snapshot(row: Row) -> TakenSnapshot:
    return TakenSnapshot(
        id=row["id"],
        environment=row["environment"],
        code_key=row["code_key"],
        warnings=tuple(row["warnings"]),
    )


def _stored_object(row: Row) -> StoredObject:
    return StoredObject(digest=row["digest"], key=row["key"], size_bytes=row["size_bytes"], etag=row["etag"])


def _blob(row: Row, column: str) -> Blob | None:
    digest = row[f"{column}_digest"]
    return Blob(digest, row[f"{column}_bytes"]) if digest else None


def _git_state(row: Row, files: list[Row]) -> GitState:
    return GitState(
        commit=row["git_commit"],
        branch=row["git_branch"],
        remote=row["git_remote"],
        patch=_blob(row, "patch"),
        untracked=tuple(
            File(file["path"], Blob(file["digest"], file["size_bytes"]), file["executable"]) for file in files
        ),
    )


def _lockfile(row: Row) -> Lockfile | None:
    blob = _blob(row, "lockfile")
    return Lockfile(row["lockfile_name"], blob) if blob else None


async def _add_objects(connection: Connection, objects: Iterable[StoredObject]) -> None:
    """In the order of their keys, so that concurrent transactions do not deadlock."""
    listed = sorted({stored.key: stored for stored in objects}.values(), key=lambda stored: stored.key)
    if not listed:
        return
    await connection.execute(
        """
        INSERT INTO stored_object AS s (key, digest, size_bytes, etag)
        SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::text[])
        ON CONFLICT (key) DO UPDATE SET size_bytes = excluded.size_bytes, etag = excluded.etag
        WHERE (s.size_bytes, s.etag) IS DISTINCT FROM (excluded.size_bytes, excluded.etag)
        """,
        [stored.key for stored in listed],
        [stored.digest for stored in listed],
        [stored.size_bytes for stored in listed],
        [stored.etag for stored in listed],
    )


async def _add_snapshot(connection: Connection, snapshot: Snapshot, installed: int, locked: int) -> bool:
    """Returns whether it is new."""
    claim = snapshot.claim
    git, lockfile, code_archive = claim.git, claim.lockfile, claim.code_archive
    patch = git.patch if git else None
    values = {
        "project": snapshot.project,
        "id": snapshot.id,
        "environment": snapshot.environment,
        "git_commit": git.commit if git else None,
        "git_branch": git.branch if git else "",
        "git_remote": git.remote if git else "",
        "patch_digest": patch.digest if patch else None,
        "patch_bytes": patch.size_bytes if patch else 0,
        "lockfile_name": lockfile.name if lockfile else None,
        "lockfile_digest": lockfile.blob.digest if lockfile else None,
        "lockfile_bytes": lockfile.blob.size_bytes if lockfile else 0,
        "code_digest": code_archive.digest if code_archive else None,
        "code_bytes": code_archive.size_bytes if code_archive else 0,
        "code_key": code_archive.code_key(snapshot.project) if code_archive else "",
        "python_version": claim.platform.python_version,
        "python_implementation": claim.platform.python_implementation,
        "system": claim.platform.system,
        "machine": claim.platform.machine,
        "installed_set": installed,
        "locked_set": locked,
        "warnings": list(snapshot.warnings),
        "taken_at": snapshot.taken_at,
    }
    placeholders = ", ".join(f"${n}" for n in range(1, len(values) + 1))
    added = await connection.fetchval(
        f"INSERT INTO snapshot ({', '.join(values)}) VALUES ({placeholders}) "  # noqa: S608 - our own columns
        "ON CONFLICT (project, id) DO NOTHING RETURNING id",
        *values.values(),
    )
    return added is not None


async def _add_untracked_files(connection: Connection, snapshot: Snapshot) -> None:
    files = snapshot.claim.git.untracked if snapshot.claim.git else ()
    if not files:
        return
    await connection.execute(
        """
        INSERT INTO untracked_file (project, snapshot, path, digest, size_bytes, executable)
        SELECT $1, $2, path, digest, size_bytes, executable
        FROM unnest($3::bytea[], $4::text[], $5::bigint[], $6::boolean[])
            AS file (path, digest, size_bytes, executable)
        """,
        snapshot.project,
        snapshot.id,
        [file.path for file in files],
        [file.blob.digest for file in files],
        [file.blob.size_bytes for file in files],
        [file.executable for file in files],
    )


async def _add_templates(connection: Connection, snapshot: Snapshot) -> None:
    templates = snapshot.claim.templates
    if not templates:
        return
    await connection.execute(
        """
        INSERT INTO library_template (project, snapshot, name, digest, size_bytes)
        SELECT $1, $2, name, digest, size_bytes
        FROM unnest($3::text[], $4::text[], $5::bigint[]) AS template (name, digest, size_bytes)
        """,
        snapshot.project,
        snapshot.id,
        [template.name for template in templates],
        [template.blob.digest for template in templates],
        [template.blob.size_bytes for template in templates],
    )


async def _add_omitted(connection: Connection, snapshot: Snapshot) -> None:
    omitted = snapshot.claim.omitted
    if not omitted:
        return
    await connection.execute(
        """
        INSERT INTO omitted_file (project, snapshot, path, reason)
        SELECT $1, $2, path, reason FROM unnest($3::bytea[], $4::text[]) AS file (path, reason)
        """,
        snapshot.project,
        snapshot.id,
        [file.path for file in omitted],
        [file.reason for file in omitted],
    )
