"""The divergence table."""

from collections.abc import Collection, Sequence

from periplus_cache.domain import Divergence
from periplus_cache.store.rows import decode_digest, encode_digest
from periplus_common.postgres import Connection, Database, Row

_COLUMNS = "project, run, step, template, fingerprint, static_key, producer_run, producer_step, outputs, detected_at, is_resolved"


async def add(connection: Connection, found: Sequence[Divergence]) -> None:
    """Store divergences. A later one of the same step replaces the earlier one."""
    for each in found:
        await connection.execute(
            f"""
            INSERT INTO divergence ({_COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
            ON CONFLICT (project, run, step) DO UPDATE SET
                fingerprint = $5, static_key = $6, producer_run = $7, producer_step = $8, outputs = $9,
                detected_at = $10, is_resolved = $11
            """,  # noqa: S608  # the columns are those above
            each.project,
            each.run,
            each.step,
            each.template,
            encode_digest(each.fingerprint),
            encode_digest(each.static_key),
            each.producer_run,
            each.producer_step,
            list(each.outputs),
            each.detected_at,
            each.is_resolved,
        )


async def resolve(connection: Connection, fingerprints: Collection[str]) -> None:
    """Note that the entries of keys are not served any more."""
    await connection.execute(
        "UPDATE divergence SET is_resolved = true WHERE fingerprint = ANY($1) AND NOT is_resolved",
        [encode_digest(each) for each in sorted(fingerprints)],
    )


async def find(database: Database, project: str, run: str, fingerprint: str, limit: int) -> list[Divergence]:
    """At most `limit`, newest first: of a run and of a key, each if it is not empty."""
    async with database.connection() as connection:
        rows = await connection.fetch(
            f"""
            SELECT {_COLUMNS} FROM divergence
            WHERE project = $1 AND ($2 = '' OR run = $2) AND ($3::bytea IS NULL OR fingerprint = $3)
            ORDER BY detected_at DESC, run, step LIMIT $4
            """,  # noqa: S608
            project,
            run,
            encode_digest(fingerprint) if fingerprint else None,
            limit,
        )
    return list(map(_decode, rows))


async def unresolved(database: Database, project: str, static_keys: Collection[str]) -> dict[str, Divergence]:
    """By static key, the first divergence from an entry that is still served."""
    async with database.connection() as connection:
        rows = await connection.fetch(
            f"""
            SELECT DISTINCT ON (static_key) {_COLUMNS} FROM divergence
            WHERE static_key = ANY($1) AND project = $2 AND NOT is_resolved
            ORDER BY static_key, detected_at, run, step
            """,  # noqa: S608
            [encode_digest(each) for each in static_keys],
            project,
        )
    return {found.static_key: found for found in map(_decode, rows)}


async def recorded_steps(database: Database, project: str, run: str) -> int:
    """How many steps of a run have an attempt."""
    async with database.connection() as connection:
        count = await connection.fetchval(
            "SELECT count(*) FROM attempt WHERE project = $1 AND run = $2", project, run
        )
    return int(count)


def _decode(row: Row) -> Divergence:
    return Divergence(
        project=row["project"],
        run=row["run"],
        step=row["step"],
        template=row["template"],
        fingerprint=decode_digest(row["fingerprint"]),
        static_key=decode_digest(row["static_key"]),
        producer_run=row["producer_run"],
        producer_step=row["producer_step"],
        outputs=tuple(row["outputs"]),
        detected_at=row["detected_at"],
        is_resolved=row["is_resolved"],
    )
