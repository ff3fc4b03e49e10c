"""The attempt and hit tables."""

from datetime import timedelta

from periplus_cache import rest
from periplus_cache.domain import Attempt, Hit, Mode, Phase, Savings, Verdict
from periplus_cache.store.digests import microseconds, or_none, to_bytes, to_text
from periplus_common.postgres import Connection, Database


async def add(connection: Connection, attempt: Attempt) -> bool:
    """Keep how a step ended. False: this was told before, or something newer was."""
    added = await connection.fetchval(
        """
        INSERT INTO attempt (project, run, step, template, phase, verdict, mode, fingerprint, static_key,
                             inputs, reason, from_run, from_step, finished_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
        ON CONFLICT (project, run, step) DO UPDATE SET
            template = excluded.template, phase = excluded.phase, verdict = excluded.verdict,
            mode = excluded.mode, fingerprint = excluded.fingerprint, static_key = excluded.static_key,
            inputs = excluded.inputs, reason = excluded.reason, from_run = excluded.from_run,
            from_step = excluded.from_step, finished_at = excluded.finished_at
        WHERE attempt.finished_at < excluded.finished_at
        RETURNING true
        """,
        attempt.project,
        attempt.run,
        attempt.step,
        attempt.template,
        attempt.phase.value,
        attempt.verdict.value,
        attempt.mode.value,
        or_none(attempt.fingerprint),
        or_none(attempt.static_key),
        None if attempt.inputs is None else rest.inputs_to_bytes(attempt.inputs),
        attempt.reason,
        attempt.from_run,
        attempt.from_step,
        attempt.finished_at,
    )
    return bool(added)


async def find(database: Database, project: str, run: str, step: str) -> tuple[Attempt, str, int] | None:
    """A step as it was seen to end, with its template's document and epoch."""
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
    attempt = Attempt(
        project,
        run,
        step,
        row["template"],
        Phase(row["phase"]),
        Verdict(row["verdict"]),
        row["finished_at"],
        Mode(row["mode"]),
        to_text(row["fingerprint"]),
        to_text(row["static_key"]),
        None if row["inputs"] is None else rest.inputs_from_bytes(row["inputs"]),
        row["reason"],
        row["from_run"],
        row["from_step"],
    )
    return attempt, (row["document"] or b"").decode(), row["epoch"] or 0


async def count(connection: Connection, hit: Hit) -> None:
    """Count a step that was not run, once."""
    await connection.execute(
        """
        INSERT INTO hit (project, run, step, fingerprint, saved_us, hit_at) VALUES ($1, $2, $3, $4, $5, $6)
        ON CONFLICT DO NOTHING
        """,
        hit.project,
        hit.run,
        hit.step,
        to_bytes(hit.fingerprint),
        microseconds(hit.saved),
        hit.at,
    )


async def savings(database: Database, project: str, run: str) -> Savings:
    """What hits saved, in a run or, without one, in the project."""
    async with database.connection() as connection:
        row = await connection.fetchrow(
            """
            SELECT count(*), coalesce(sum(saved_us), 0)::bigint
            FROM hit WHERE project = $1 AND ($2 = '' OR run = $2)
            """,
            project,
            run,
        )
    assert row is not None  # an aggregate always has its row
    return Savings(row[0], timedelta(microseconds=row[1]))
