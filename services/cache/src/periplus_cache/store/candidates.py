"""The query of ResolveSteps: the live entries that the steps of a request may hit, in one round trip."""

from collections.abc import Collection, Mapping
from datetime import datetime
from functools import partial

from periplus_cache.domain import Candidate
from periplus_cache.ports import MAX_PER_BASE
from periplus_cache.store.rows import decode_digest, decode_inputs, decode_outputs, encode_digest
from periplus_common.postgres import Database

# The first branch reads by static key, newest first, each with its own limit; the second by fingerprint; the third those with
# discovered inputs, by the fingerprint without them.
CANDIDATES = """
    SELECT found.fingerprint, wanted.static_key, found.producer_run, found.producer_step, found.outputs,
           found.confirmed_at, found.duration, false AS is_exact, found.base_fingerprint, found.inputs
    FROM unnest($1::bytea[], $2::int[]) AS wanted (static_key, max_rows)
    CROSS JOIN LATERAL (
        SELECT fingerprint, producer_run, producer_step, outputs, confirmed_at, duration, base_fingerprint,
               CASE WHEN base_fingerprint IS NOT NULL THEN inputs END AS inputs
        FROM entry
        WHERE entry.static_key = wanted.static_key AND project = $5 AND invalidation_reason = ''
          AND (expires_at IS NULL OR expires_at > $4)
        ORDER BY confirmed_at DESC
        LIMIT wanted.max_rows + 1
    ) AS found
    UNION ALL
    SELECT fingerprint, static_key, producer_run, producer_step, outputs, confirmed_at, duration, true, NULL, NULL
    FROM entry
    WHERE fingerprint = ANY($3) AND project = $5 AND invalidation_reason = '' AND base_fingerprint IS NULL
      AND (expires_at IS NULL OR expires_at > $4)
    UNION ALL
    SELECT found.* FROM unnest($3::bytea[]) AS wanted (base)
    CROSS JOIN LATERAL (
        SELECT fingerprint, static_key, producer_run, producer_step, outputs, confirmed_at, duration, true,
               base_fingerprint, inputs
        FROM entry
        WHERE entry.base_fingerprint = wanted.base AND project = $5 AND invalidation_reason = ''
          AND (expires_at IS NULL OR expires_at > $4)
        ORDER BY confirmed_at DESC
        LIMIT $6
    ) AS found
"""


async def candidates(
    database: Database,
    project: str,
    limits: Mapping[str, int],
    fingerprints: Collection[str],
    now: datetime,
) -> tuple[list[Candidate], list[Candidate]]:
    """Live entries by static key, and those with these fingerprints."""
    async with database.connection() as connection:
        rows = await connection.fetch(
            CANDIDATES,
            [encode_digest(static_key) for static_key in limits],
            list(limits.values()),
            [encode_digest(fingerprint) for fingerprint in fingerprints],
            now,
            project,
            MAX_PER_BASE,
        )
    by_static_key: list[Candidate] = []
    exact: list[Candidate] = []
    for fingerprint, static_key, run, step, outputs, confirmed_at, duration, is_exact, base, inputs in rows:
        candidate = Candidate(
            fingerprint=decode_digest(fingerprint),
            static_key=decode_digest(static_key),
            producer_run=run,
            producer_step=step,
            confirmed_at=confirmed_at,
            duration=duration,
            load_outputs=partial(decode_outputs, outputs),
            base_fingerprint=decode_digest(base),
            discovered={} if base is None else decode_inputs(inputs).discovered,
        )
        (exact if is_exact else by_static_key).append(candidate)
    return by_static_key, exact
