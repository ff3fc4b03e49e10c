"""Entries that a step may be compared with, to say why it ran."""

from periplus_cache import rest
from periplus_cache.attempt import Attempt
from periplus_cache.ports import Earlier
from periplus_cache.store.digests import to_bytes, to_text
from periplus_common.postgres import Database

# Each is tried where those before found nothing. Of a fan-out the same item of another run tells most, so the
# same step is asked for by itself: among the newest there may be a thousand others.
_SAME_KIND = """
    (SELECT fingerprint FROM entry WHERE static_key = $5 AND step = $4 AND run <> $3 AND recorded_at <= $2
     ORDER BY recorded_at DESC LIMIT 50)
    UNION
    (SELECT fingerprint FROM entry WHERE static_key = $5 AND run <> $3 AND recorded_at <= $2 AND buried = ''
     ORDER BY confirmed_at DESC LIMIT 150)
"""
_SAME_RUN = """
    SELECT fingerprint FROM entry WHERE static_key = $5 AND step <> $4 AND run = $3 AND recorded_at <= $2 AND buried = ''
    ORDER BY confirmed_at DESC LIMIT 150
"""
_SAME_NAME = """
    (SELECT fingerprint FROM entry
     WHERE project = $1 AND template = $5 AND step = $4 AND run <> $3 AND recorded_at <= $2
     ORDER BY recorded_at DESC LIMIT 20)
    UNION
    (SELECT fingerprint FROM entry
     WHERE project = $1 AND template = $5 AND (run, step) <> ($3, $4) AND recorded_at <= $2
     ORDER BY recorded_at DESC LIMIT 20)
"""
_WHOLE = """
    SELECT fingerprint, run, step, recorded_at, epoch, inputs,
           CASE WHEN entry.static_key <> $6 THEN document END AS document
    FROM entry JOIN template USING (static_key)
    WHERE entry.project = $1 AND fingerprint IN ({})
"""


async def earlier(database: Database, attempt: Attempt) -> list[Earlier]:
    """Entries that were there when a step ended: of its static key or, without any, of its template's name."""
    static_key = to_bytes(attempt.static_key)
    async with database.connection() as connection:
        for entries, last in (
            (_SAME_KIND, static_key),
            (_SAME_RUN, static_key),
            (_SAME_NAME, attempt.template),
        ):
            rows = await connection.fetch(
                _WHOLE.format(entries),
                attempt.project,
                attempt.finished_at,
                attempt.run,
                attempt.step,
                last,
                static_key,
            )
            if rows:
                break
    return [
        Earlier(
            to_text(r["fingerprint"]),
            r["run"],
            r["step"],
            r["recorded_at"],
            None if r["document"] is None else r["document"].decode(),
            r["epoch"],
            rest.inputs_from_bytes(r["inputs"]),
        )
        for r in rows
    ]
