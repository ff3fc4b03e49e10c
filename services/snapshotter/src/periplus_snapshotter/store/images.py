"""The digests of a project's images, and the packages of images and their layers."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import timedelta

from periplus_common import bus, outbox
from periplus_common.postgres import Database
from periplus_snapshotter import wire
from periplus_snapshotter.images.reading import ImageUse, PackageUse, ProjectImage
from periplus_snapshotter.images.resolver import ResolvedImage
from periplus_snapshotter.layers.layer import Layer
from periplus_snapshotter.layers.process import decode
from periplus_snapshotter.snapshots.claim import Package
from periplus_snapshotter.store.packages import add_package_set, get_packages

MAX_FOUND = 1000
_KINDS = ("", "deb/", "apk/", "conda/")


class PostgresImages:
    """Implements `ImageStore`. Each method is one transaction."""

    def __init__(self, database: Database, touch_after: timedelta = timedelta(hours=1)) -> None:
        self._database = database
        self._touch_after = touch_after

    async def add_resolved(self, project: str, images: Sequence[ResolvedImage]) -> None:
        known = sorted(
            {image.image: image for image in images if image.digest}.values(), key=lambda i: i.image
        )
        if not known:
            return
        async with self._database.connection() as connection:
            await connection.execute(
                """
                INSERT INTO project_image AS present (project, name, digest, manifest)
                SELECT $1, * FROM unnest($2::text[], $3::text[], $4::text[])
                ON CONFLICT (project, name, digest) DO UPDATE SET resolved_at = now(), manifest = excluded.manifest
                WHERE present.resolved_at < now() - $5::interval
                   OR EXISTS (SELECT FROM project_image AS other WHERE other.project = present.project
                              AND other.name = present.name AND other.resolved_at > present.resolved_at)
                """,
                project,
                [image.image for image in known],
                [image.digest for image in known],
                [image.manifest.digest if image.manifest else "" for image in known],
                self._touch_after,
            )

    async def list_images(self, project: str) -> list[ProjectImage]:
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                """
                SELECT DISTINCT ON (name) name, digest, resolved_at FROM project_image
                WHERE project = $1 ORDER BY name, resolved_at DESC LIMIT $2
                """,
                project,
                MAX_FOUND,
            )
        return [ProjectImage(row["name"], row["digest"], row["resolved_at"]) for row in rows]

    async def list_current(self, within: timedelta) -> list[tuple[str, ProjectImage]]:
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                """
                SELECT DISTINCT ON (project, name) project, name, digest, resolved_at FROM project_image
                WHERE resolved_at > now() - $1::interval AND name NOT LIKE '%@%'
                ORDER BY project, name, resolved_at DESC
                """,
                within,
            )
        return [
            (row["project"], ProjectImage(row["name"], row["digest"], row["resolved_at"])) for row in rows
        ]

    async def add_moved(self, moved: Sequence[tuple[str, ProjectImage, str]]) -> None:
        if not moved:
            return
        listed = sorted(moved, key=lambda each: (each[0], each[1].name))
        async with self._database.transaction() as connection:
            rows = await connection.fetch(
                """
                UPDATE project_image AS present SET moved_to = new.digest
                FROM unnest($1::text[], $2::text[], $3::text[], $4::text[]) AS new (project, name, old, digest)
                WHERE present.project = new.project AND present.name = new.name AND present.digest = new.old
                  AND present.moved_to <> new.digest
                RETURNING present.project, present.name, present.digest, present.moved_to, now() AS at
                """,
                [project for project, _, _ in listed],
                [image.name for _, image, _ in listed],
                [image.digest for _, image, _ in listed],
                [digest for _, _, digest in listed],
            )
            events = [
                wire.encode_image_moved(
                    row["project"], row["name"], row["digest"], row["moved_to"], row["at"]
                )
                for row in rows
            ]
            await outbox.add(
                connection,
                [
                    bus.cloud_event(
                        event,
                        project=event.project,
                        run="",
                        key=f"{event.image} {event.old_digest} {event.new_digest} {row['at'].isoformat()}",
                        at=row["at"],
                    )
                    for event, row in zip(events, rows, strict=True)
                ],
            )

    async def get_image(self, manifest: str) -> tuple[Package, ...] | None:
        async with self._database.connection() as connection:
            set_id = await connection.fetchval("SELECT set_id FROM image WHERE digest = $1", manifest)
            return None if set_id is None else await get_packages(connection, set_id)

    async def add_image(self, manifest: str, packages: tuple[Package, ...]) -> None:
        async with self._database.transaction() as connection:
            set_id = await add_package_set(connection, packages)
            await connection.execute(
                "INSERT INTO image (digest, set_id) VALUES ($1, $2) ON CONFLICT (digest) DO NOTHING",
                manifest,
                set_id,
            )

    async def get_layer(self, digest: str) -> Layer | None:
        async with self._database.connection() as connection:
            found = await connection.fetchval("SELECT found::text FROM image_layer WHERE digest = $1", digest)
        return None if found is None else decode(json.loads(found))

    async def add_layer(self, digest: str, layer: Layer) -> None:
        async with self._database.connection() as connection:
            await connection.execute(
                "INSERT INTO image_layer (digest, found) VALUES ($1, $2::json) ON CONFLICT (digest) DO NOTHING",
                digest,
                json.dumps(asdict(layer)),
            )

    async def find_package(self, project: str, name: str) -> PackageUse:
        names = [kind + name for kind in _KINDS]
        async with self._database.connection() as connection:
            images = await connection.fetch(
                """
                SELECT i.name, i.digest, i.resolved_at, p.name AS package, p.version
                FROM package AS p JOIN image AS m USING (set_id) JOIN project_image AS i ON i.manifest = m.digest
                WHERE p.name = ANY($2) AND i.project = $1 ORDER BY i.resolved_at DESC, i.name LIMIT $3
                """,
                project, names, MAX_FOUND,
            )  # fmt: skip
            snapshots = await connection.fetch(
                """
                SELECT s.id, s.taken_at, p.version, p.set_id = s.installed_set AS is_installed
                FROM package AS p JOIN snapshot AS s ON p.set_id IN (s.installed_set, s.locked_set)
                WHERE p.name = $2 AND s.project = $1 ORDER BY s.taken_at DESC, is_installed DESC LIMIT $3
                """,
                project, name, MAX_FOUND,
            )  # fmt: skip
        return PackageUse(
            tuple(
                ImageUse(r["name"], r["digest"], r["resolved_at"], r["package"], r["version"]) for r in images
            ),
            tuple((r["id"], r["taken_at"], r["version"], bool(r["is_installed"])) for r in snapshots),
        )
