"""The content table: digests of objects that were read."""

from collections.abc import Collection, Mapping

from periplus_cache.domain import VersionedObject
from periplus_cache.store.rows import decode_digest, encode_digest
from periplus_common.postgres import Database


async def find(database: Database, objects: Collection[VersionedObject]) -> dict[VersionedObject, str]:
    """The digests of those objects that were read before."""
    wanted = list(objects)
    async with database.connection() as connection:
        rows = await connection.fetch(
            """
            SELECT wanted.position, content.digest
            FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[])
                 WITH ORDINALITY AS wanted (endpoint, bucket, key, etag, size_bytes, position)
            JOIN content USING (endpoint, bucket, key, etag, size_bytes)
            """,
            *_columns(wanted),
        )
    return {wanted[position - 1]: decode_digest(digest) for position, digest in rows}


async def add(database: Database, digests: Mapping[VersionedObject, str]) -> None:
    """Store the digests of objects. An object version has one digest, so an existing row is right."""
    async with database.connection() as connection:
        await connection.execute(
            """
            INSERT INTO content (endpoint, bucket, key, etag, size_bytes, digest)
            SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::bytea[])
            ON CONFLICT DO NOTHING
            """,
            *_columns(list(digests)),
            [encode_digest(digest) for digest in digests.values()],
        )


def _columns(objects: list[VersionedObject]) -> tuple[list[str], list[str], list[str], list[str], list[int]]:
    return (
        [found.object.endpoint for found in objects],
        [found.object.bucket for found in objects],
        [found.object.key for found in objects],
        [found.version.etag for found in objects],
        [found.version.size_bytes for found in objects],
    )
