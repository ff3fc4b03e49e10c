"""The hot query: the live entries that a plan may hit, all in one."""

from collections.abc import Collection, Mapping
from datetime import datetime

from periplus_cache.known import Candidate
from periplus_cache.store.digests import to_bytes, to_text
from periplus_common.postgres import Database

# One branch by static key, newest first, each with its own limit; one branch by fingerprint.
CANDIDATES = """
    SELECT found.fingerprint, wanted.static_key, found.run, found.step, found.outputs,
           found.confirmed_at, found.took_us, false AS exact
    FROM unnest($1::bytea[], $2::int[]) AS wanted (static_key, most)
    CROSS JOIN LATERAL (
        SELECT fingerprint, run, step, outputs, confirmed_at, took_us
        FROM entry
        WHERE entry.static_key = wanted.static_key AND project = $5 AND buried = ''
          AND (expires_at IS NULL OR expires_at > $4)
        ORDER BY confirmed_at DESC
        LIMIT wanted.most + 1
    ) AS found
    UNION ALL
    SELECT fingerprint, static_key, run, step, outputs, confirmed_at, took_us, true
    FROM entry
    WHERE fingerprint = ANY($3) AND project = $5 AND buried = '' AND (expires_at IS NULL OR expires_at > $4)
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
            [to_bytes(static_key) for static_key in limits],
            list(limits.values()),
            [to_bytes(fingerprint) for fingerprint in fingerprints],
            now,
            project,
        )
    by_static: list[Candidate] = []
    exact: list[Candidate] = []
    for fingerprint, static_key, run, step, outputs, confirmed_at, took_us, is_exact in rows:
        candidate = Candidate(
            to_text(fingerprint), to_text(static_key), run, step, outputs, confirmed_at, took_us
        )
        (exact if is_exact else by_static).append(candidate)
    return by_static, exact
