"""What became of the results of keys that have no entry which could be served."""

from collections.abc import Collection

from periplus_cache.history import PastEntry, PastResult
from periplus_cache.store import attempts
from periplus_cache.store.rows import decode_digest, encode_digest
from periplus_common.postgres import Database

_HISTORY = """
    SELECT wanted.fingerprint AS name, attempt.*, NULL::bytea AS inputs, entry.*
    FROM unnest($1::bytea[]) AS wanted (fingerprint)
    LEFT JOIN LATERAL (
        SELECT project, run, step, template, phase, verdict, cache_mode, fingerprint, static_key, uncacheable_reason,
               not_recorded_reason, producer_run, producer_step, finished_at, observed_pipeline, duration, pods,
               pipeline, unserved_reason
        FROM attempt
        WHERE attempt.fingerprint = wanted.fingerprint AND project = $2 AND phase <> 'cached'
        ORDER BY finished_at DESC LIMIT 1
    ) AS attempt ON true
    LEFT JOIN LATERAL (
        (SELECT producer_run AS entry_run, producer_step AS entry_step, invalidation_reason, expires_at
         FROM entry WHERE entry.fingerprint = wanted.fingerprint AND project = $2)
        UNION ALL
        (SELECT producer_run, producer_step, invalidation_reason, expires_at
         FROM entry WHERE base_fingerprint = wanted.fingerprint AND project = $2 AND invalidation_reason = ''
         ORDER BY confirmed_at DESC LIMIT 1)
        LIMIT 1
    ) AS entry ON true
    WHERE attempt.run IS NOT NULL OR entry.entry_run IS NOT NULL
"""


async def past_results(
    database: Database, project: str, fingerprints: Collection[str]
) -> dict[str, PastResult]:
    """The last attempt and the entry of each key that has one of the two."""
    async with database.connection() as connection:
        rows = await connection.fetch(_HISTORY, [encode_digest(each) for each in fingerprints], project)
    return {
        decode_digest(row["name"]): PastResult(
            attempts.decode(row) if row["run"] is not None else None,
            PastEntry(row["entry_run"], row["entry_step"], row["invalidation_reason"], row["expires_at"])
            if row["entry_run"] is not None
            else None,
        )
        for row in rows
    }
