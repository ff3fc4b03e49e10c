"""The content table: the digests of objects that were read."""

from collections.abc import Collection, Mapping

from periplus_cache.ports import Seen
from periplus_cache.store.digests import to_bytes, to_text
from periplus_common.postgres import Database


async def find(database: Database, seen: Collection[Seen]) -> dict[Seen, str]:
    """The digests of those of these objects that were read before."""
    asked = list(seen)
    async with database.connection() as connection:
        rows = await connection.fetch(
            """
            SELECT asked.position, content.digest
            FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[])
                 WITH ORDINALITY AS asked (endpoint, bucket, key, etag, size, position)
            JOIN content USING (endpoint, bucket, key, etag, size)
            """,
            *_columns(asked),
        )
    return {asked[position - 1]: to_text(digest) for position, digest in rows}


async def keep(database: Database, digests: Mapping[Seen, str]) -> None:
    """Keep the digests of objects. Whoever read the same bytes found the same."""
    async with database.connection() as connection:
        await connection.execute(
            """
            INSERT INTO content (endpoint, bucket, key, etag, size, digest)
            SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::bytea[])
            ON CONFLICT DO NOTHING
            """,
            *_columns(list(digests)),
            [to_bytes(digest) for digest in digests.values()],
        )


def _columns(seen: list[Seen]) -> tuple[list[str], list[str], list[str], list[str], list[int]]:
    return (
        [what.place.endpoint for what in seen],
        [what.place.bucket for what in seen],
        [what.place.key for what in seen],
        [what.etag for what in seen],
        [what.size for what in seen],
    )
