"""Which rows and objects are deleted once they are older than a setting.

A snapshot is deleted when it was not taken again for that long; lists of packages and lockfiles when no row refers to them;
objects in the artifact repository when no snapshot has them and no claim had them for that long.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta

from periplus_common.errors import PeriplusError
from periplus_common.postgres import Database
from periplus_common.retention import KeepFor, Retention
from periplus_common.runtime import background_task

log = logging.getLogger(__name__)

_UNUSED = """
    used_at < now() - $1::interval
    AND NOT EXISTS (SELECT FROM snapshot AS s WHERE s.patch_digest = o.digest)
    AND NOT EXISTS (SELECT FROM snapshot AS s WHERE s.lockfile_digest = o.digest)
    AND NOT EXISTS (SELECT FROM snapshot AS s WHERE s.code_key = o.key)
    AND NOT EXISTS (SELECT FROM untracked_file AS f WHERE f.digest = o.digest)
    AND NOT EXISTS (SELECT FROM library_template AS t WHERE t.digest = o.digest)
"""

DeleteObject = Callable[[str], Awaitable[None]]
"""Deletes the object with this key, if there is one. Raises `PeriplusError`."""


def retentions(keep_snapshots: KeepFor) -> list[Retention]:
    """Of every table but `stored_object`, in the order in which they refer to each other."""
    return [
        Retention.older_than("snapshot", "last_taken_at", keep_snapshots),
        Retention.older_than(
            "lockfile",
            "created_at",
            keep_snapshots,
            unless="EXISTS (SELECT FROM snapshot AS s"
            " WHERE s.lockfile_digest = candidate.digest AND s.lockfile_name = candidate.name)",
        ),
        Retention.older_than("project_image", "resolved_at", keep_snapshots),
        Retention.older_than(
            "image",
            "read_at",
            keep_snapshots,
            unless="EXISTS (SELECT FROM project_image AS p WHERE p.manifest = candidate.digest)",
        ),
        Retention.older_than("image_layer", "read_at", keep_snapshots),
        Retention.older_than(
            "package_set",
            "created_at",
            keep_snapshots,
            unless="EXISTS (SELECT FROM snapshot AS s WHERE s.installed_set = candidate.id)"
            " OR EXISTS (SELECT FROM snapshot AS s WHERE s.locked_set = candidate.id)"
            " OR EXISTS (SELECT FROM lockfile AS l WHERE l.set_id = candidate.id)"
            " OR EXISTS (SELECT FROM image AS i WHERE i.set_id = candidate.id)",
        ),
    ]


async def delete_unused_objects(
    database: Database, delete: DeleteObject, keep_for: timedelta, *, batch_objects: int = 20
) -> int:
    """Delete unused objects and their rows, and return how many. Raises `PeriplusError`.

    Rows are marked first: after a crash or a failure, nobody knows whether their objects are still there, so a new claim
    writes these again. While an object is being deleted its row is locked, and a claim that has it waits.
    """
    deleted = 0
    while True:
        async with database.connection() as connection:
            marked = await connection.fetch(
                f"""
                UPDATE stored_object SET etag = '' WHERE key IN (
                    SELECT o.key FROM stored_object AS o WHERE {_UNUSED}
                    ORDER BY o.used_at LIMIT $2::int FOR UPDATE SKIP LOCKED)
                RETURNING key
                """,  # noqa: S608 - a constant
                keep_for,
                batch_objects,
            )
        if not marked:
            return deleted
        async with database.transaction() as connection:
            rows = await connection.fetch(
                f"DELETE FROM stored_object AS o WHERE o.key = ANY($2) AND o.etag = '' AND {_UNUSED} RETURNING key",  # noqa: S608
                keep_for,
                [row["key"] for row in marked],
            )
            for row in rows:
                await delete(row["key"])
        deleted += len(rows)
        if len(marked) < batch_objects:
            return deleted


@asynccontextmanager
async def deleting_unused_objects(
    database: Database,
    delete: DeleteObject,
    keep_for: KeepFor,
    *,
    interval: timedelta = timedelta(hours=1),
) -> AsyncIterator[None]:
    """Delete unused objects once every `interval` while the block is open. A failure is logged."""

    async def run(keep_for: timedelta) -> None:
        while True:
            await asyncio.sleep(interval.total_seconds())
            try:
                count = await delete_unused_objects(database, delete, keep_for)
            except PeriplusError as error:
                log.warning("unused objects are not deleted: %s", error)
            else:
                if count:
                    log.info("deleted %d objects that no snapshot had for %s", count, keep_for)

    if keep_for is None:
        yield
        return
    async with background_task(run(keep_for)):
        yield
