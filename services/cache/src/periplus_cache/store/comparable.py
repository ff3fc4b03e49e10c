"""Entries that a step is compared with to explain why it ran."""

from collections.abc import Sequence
from itertools import product

from periplus_cache.domain import Attempt, ComparableEntry
from periplus_cache.store.rows import decode_digest, decode_inputs, encode_digest
from periplus_common.postgres import Database, Row

# Each query is tried if those before found nothing, first for entries of the step's own pipeline and then for all. The same item of a fan-out in another run explains most, so the same
# step is queried by itself: the newest entries alone may be a thousand other items.
_SAME_STATIC_KEY = """
    (SELECT fingerprint FROM entry
     WHERE static_key = $5 AND producer_step = $4 AND producer_run <> $3 AND recorded_at <= $2 AND ($7 = '' OR pipeline = $7)
     ORDER BY recorded_at DESC LIMIT 50)
    UNION
    (SELECT fingerprint FROM entry
     WHERE static_key = $5 AND producer_run <> $3 AND recorded_at <= $2 AND ($7 = '' OR pipeline = $7) AND invalidation_reason = ''
     ORDER BY confirmed_at DESC LIMIT 150)
"""
_SAME_RUN = """
    SELECT fingerprint FROM entry
    WHERE static_key = $5 AND producer_step <> $4 AND producer_run = $3 AND recorded_at <= $2 AND ($7 = '' OR pipeline = $7)
      AND invalidation_reason = ''
    ORDER BY confirmed_at DESC LIMIT 150
"""
_SAME_TEMPLATE_NAME = """
    (SELECT fingerprint FROM entry
     WHERE project = $1 AND template = $5 AND producer_step = $4 AND producer_run <> $3 AND recorded_at <= $2 AND ($7 = '' OR pipeline = $7)
     ORDER BY recorded_at DESC LIMIT 20)
    UNION
    (SELECT fingerprint FROM entry
     WHERE project = $1 AND template = $5 AND (producer_run, producer_step) <> ($3, $4) AND recorded_at <= $2 AND ($7 = '' OR pipeline = $7)
     ORDER BY recorded_at DESC LIMIT 20)
"""
_ENTRIES = """
    SELECT fingerprint, producer_run, producer_step, recorded_at, epoch, inputs, expires_at,
           CASE WHEN entry.static_key <> $6 THEN document END AS document
    FROM entry JOIN template USING (static_key)
    WHERE entry.project = $1 AND fingerprint IN ({})
"""


async def comparable_entries(database: Database, attempt: Attempt) -> list[ComparableEntry]:
    """Entries that existed when a step finished: of its static key, or else of its template's name."""
    static_key = encode_digest(attempt.static_key)
    queries = (
        (_SAME_STATIC_KEY, static_key),
        (_SAME_RUN, static_key),
        (_SAME_TEMPLATE_NAME, attempt.template),
    )
    rows: Sequence[Row] = ()
    async with database.connection() as connection:
        for pipeline, (fingerprints, key) in product([*filter(None, [attempt.pipeline]), ""], queries):
            rows = await connection.fetch(
                _ENTRIES.format(fingerprints),
                attempt.project,
                attempt.finished_at,
                attempt.run,
                attempt.step,
                key,
                static_key,
                pipeline,
            )
            if rows:
                break
    return [
        ComparableEntry(
            fingerprint=decode_digest(row["fingerprint"]),
            producer_run=row["producer_run"],
            producer_step=row["producer_step"],
            recorded_at=row["recorded_at"],
            document=None if row["document"] is None else row["document"].decode(),
            epoch=row["epoch"],
            inputs=decode_inputs(row["inputs"]),
            expires_at=row["expires_at"],
        )
        for row in rows
    ]
