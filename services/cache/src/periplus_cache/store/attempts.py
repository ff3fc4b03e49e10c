"""The attempt and hit tables."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from periplus_cache.domain import Attempt, AttemptDetails, Hit, PipelineShadow, Savings
from periplus_cache.store.rows import (
    decode_digest,
    decode_inputs,
    encode_digest,
    encode_inputs,
    encode_optional_digest,
)
from periplus_common.postgres import Connection, Database, Row
from periplus_model.steps import CacheMode, StepPhase, Verdict

StepKey = tuple[str, str, str]
"""Project, run and step."""

_COLUMNS = {
    "project": "text",
    "run": "text",
    "step": "text",
    "template": "text",
    "phase": "text",
    "verdict": "text",
    "cache_mode": "text",
    "fingerprint": "bytea",
    "static_key": "bytea",
    "inputs": "bytea",
    "uncacheable_reason": "text",
    "not_recorded_reason": "text",
    "producer_run": "text",
    "producer_step": "text",
    "finished_at": "timestamptz",
    "observed_pipeline": "text",
    "duration": "interval",
    "pods": "int",
    "pipeline": "text",
    "unserved_reason": "text",
}
_ADD = f"""
    INSERT INTO attempt ({", ".join(_COLUMNS)})
    SELECT * FROM unnest({", ".join(f"${n}::{kind}[]" for n, kind in enumerate(_COLUMNS.values(), start=1))})
    ON CONFLICT (project, run, step) DO UPDATE SET
        {", ".join(f"{name} = excluded.{name}" for name in list(_COLUMNS)[3:])}
    WHERE attempt.finished_at < excluded.finished_at
    RETURNING project, run, step
"""  # noqa: S608  # the columns are those above


async def add(connection: Connection, attempts: Sequence[Attempt]) -> set[StepKey]:
    """Store attempts, each of another step. Returns those that are new or newer than the stored one."""
    stored = [_encode(attempt) for attempt in attempts]
    rows = await connection.fetch(_ADD, *([row[name] for row in stored] for name in _COLUMNS))
    return {(row["project"], row["run"], row["step"]) for row in rows}


def _encode(attempt: Attempt) -> dict[str, object]:
    return {
        "project": attempt.project,
        "run": attempt.run,
        "step": attempt.step,
        "template": attempt.template,
        "phase": attempt.phase.label,
        "verdict": attempt.verdict.label,
        "cache_mode": attempt.cache_mode.label,
        "fingerprint": encode_optional_digest(attempt.fingerprint),
        "static_key": encode_optional_digest(attempt.static_key),
        "inputs": None if attempt.inputs is None else encode_inputs(attempt.inputs),
        "uncacheable_reason": attempt.uncacheable_reason,
        "not_recorded_reason": attempt.not_recorded_reason,
        "producer_run": attempt.producer_run,
        "producer_step": attempt.producer_step,
        "finished_at": attempt.finished_at,
        "observed_pipeline": attempt.observed_pipeline,
        "duration": attempt.duration,
        "pods": attempt.pods,
        "pipeline": attempt.pipeline or None,
        "unserved_reason": attempt.unserved_reason,
    }


def decode(row: Row) -> Attempt:
    """The attempt of a row with its columns."""
    return Attempt(
        project=row["project"],
        run=row["run"],
        step=row["step"],
        template=row["template"],
        phase=StepPhase.from_label(row["phase"]),
        verdict=Verdict.from_label(row["verdict"]),
        finished_at=row["finished_at"],
        cache_mode=CacheMode.from_label(row["cache_mode"]),
        fingerprint=decode_digest(row["fingerprint"]),
        static_key=decode_digest(row["static_key"]),
        inputs=None if row["inputs"] is None else decode_inputs(row["inputs"]),
        uncacheable_reason=row["uncacheable_reason"],
        not_recorded_reason=row["not_recorded_reason"],
        producer_run=row["producer_run"],
        producer_step=row["producer_step"],
        observed_pipeline=row["observed_pipeline"],
        duration=row["duration"],
        pods=row["pods"],
        pipeline=row["pipeline"] or "",
        unserved_reason=row["unserved_reason"],
    )


async def find(database: Database, project: str, run: str, step: str) -> AttemptDetails | None:
    """The attempt of a step, with its template's document and epoch."""
    async with database.connection() as connection:
        row = await connection.fetchrow(
            """
            SELECT attempt.*, document, epoch FROM attempt LEFT JOIN template USING (static_key)
            WHERE attempt.project = $1 AND run = $2 AND step = $3
            """,
            project,
            run,
            step,
        )
    if row is None:
        return None
    return AttemptDetails(decode(row), document=(row["document"] or b"").decode(), epoch=row["epoch"] or 0)


async def find_previous(database: Database, attempt: Attempt) -> Attempt | None:
    """The last attempt of another run with the same fingerprint that finished before and was no hit."""
    async with database.connection() as connection:
        row = await connection.fetchrow(
            """
            SELECT * FROM attempt
            WHERE fingerprint = $1 AND project = $2 AND run <> $3 AND finished_at <= $4 AND phase <> 'cached'
            ORDER BY finished_at DESC LIMIT 1
            """,
            encode_digest(attempt.fingerprint),
            attempt.project,
            attempt.run,
            attempt.finished_at,
        )
    return decode(row) if row else None


async def add_hits(connection: Connection, hits: Sequence[Hit]) -> None:
    """Store hits. A step that has one already keeps it."""
    if not hits:
        return
    await connection.execute(
        """
        INSERT INTO hit (project, run, step, fingerprint, saved, hit_at)
        SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bytea[], $5::interval[], $6::timestamptz[])
        ON CONFLICT DO NOTHING
        """,
        [hit.project for hit in hits],
        [hit.run for hit in hits],
        [hit.step for hit in hits],
        [encode_digest(hit.fingerprint) for hit in hits],
        [hit.saved for hit in hits],
        [hit.hit_at for hit in hits],
    )


async def savings(database: Database, project: str, run: str) -> Savings:
    """What the hits of a run saved; with an empty `run`, of all runs of the project."""
    async with database.connection() as connection:
        row = await connection.fetchrow(
            """
            SELECT count(*) AS hits, sum(saved) AS saved
            FROM hit WHERE project = $1 AND ($2 = '' OR run = $2)
            """,
            project,
            run,
        )
    assert row is not None  # an aggregate always has a row
    return Savings(hits=row["hits"], saved=row["saved"] or timedelta())


# A step would have been a hit if another one with its key had succeeded before it started.
_SHADOW = """
    WITH ran AS (
        SELECT observed_pipeline AS pipeline, run, duration, pods, uncacheable_reason,
            uncacheable_reason = '' AND EXISTS (
                SELECT FROM attempt AS producer
                WHERE producer.fingerprint = step.fingerprint AND producer.project = step.project
                  AND producer.finished_at <= step.finished_at - step.duration AND producer.phase = 'succeeded'
                  AND producer.uncacheable_reason = '' AND producer.not_recorded_reason = ''
                  -- Argo's times are whole seconds: of two that are equal, one alone is the other's producer.
                  AND (producer.finished_at, producer.run, producer.step)
                      < (step.finished_at, step.run, step.step)
            ) AS is_hit
        FROM attempt AS step
        WHERE project = $1 AND observed_pipeline IS NOT NULL AND ($2 = '' OR observed_pipeline = $2)
          AND ($3::timestamptz IS NULL OR finished_at >= $3) AND phase IN ('succeeded', 'failed', 'error')
    )
    SELECT pipeline, count(DISTINCT run) AS runs, count(*) AS steps, count(*) FILTER (WHERE is_hit) AS hits,
           coalesce(sum(duration) FILTER (WHERE is_hit), '0') AS saved,
           coalesce(sum(pods) FILTER (WHERE is_hit), 0) AS saved_pods,
           sum(duration) AS duration,
           count(*) FILTER (WHERE uncacheable_reason <> '') AS uncacheable_steps,
           coalesce(mode() WITHIN GROUP (ORDER BY uncacheable_reason) FILTER (WHERE uncacheable_reason <> ''), '')
               AS uncacheable_reason
    FROM ran GROUP BY pipeline ORDER BY saved DESC, pipeline LIMIT $4
"""


async def shadow_savings(
    database: Database, project: str, pipeline: str, finished_after: datetime | None, limit: int
) -> list[PipelineShadow]:
    """What the cache would have saved in observed runs, by pipeline, the largest savings first."""
    async with database.connection() as connection:
        rows = await connection.fetch(_SHADOW, project, pipeline, finished_after, limit)
    return [PipelineShadow(**row) for row in rows]
