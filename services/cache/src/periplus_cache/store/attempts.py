"""The attempt and hit tables."""

from collections.abc import Sequence
from datetime import timedelta

from periplus_cache import rest
from periplus_cache.attempt import Attempt, Hit, Savings
from periplus_cache.domain import Mode, Phase, Verdict
from periplus_cache.store.digests import microseconds, or_none, to_bytes, to_text
from periplus_common.postgres import Connection, Database, Row

Key = tuple[str, str, str]
"""Project, run and step."""


async def add(connection: Connection, attempts: Sequence[Attempt]) -> set[Key]:
    """Keep how steps ended, each of another step. Those are left out that were told before, or something newer."""
    rows = await connection.fetch(
        """
        INSERT INTO attempt (project, run, step, template, phase, verdict, mode, fingerprint, static_key,
                             inputs, reason, unkept, producer_run, producer_step, finished_at)
        SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[],
            $8::bytea[], $9::bytea[], $10::bytea[], $11::text[], $12::text[], $13::text[], $14::text[],
            $15::timestamptz[])
        ON CONFLICT (project, run, step) DO UPDATE SET
            template = excluded.template, phase = excluded.phase, verdict = excluded.verdict,
            mode = excluded.mode, fingerprint = excluded.fingerprint, static_key = excluded.static_key,
            inputs = excluded.inputs, reason = excluded.reason, unkept = excluded.unkept, producer_run = excluded.producer_run,
            producer_step = excluded.producer_step, finished_at = excluded.finished_at
        WHERE attempt.finished_at < excluded.finished_at
        RETURNING project, run, step
        """,
        *zip(*map(_values, attempts), strict=True),
    )
    return {(row["project"], row["run"], row["step"]) for row in rows}


def _values(attempt: Attempt) -> tuple[object, ...]:
    return (
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
        attempt.unkept,
        attempt.producer_run,
        attempt.producer_step,
        attempt.finished_at,
    )


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
    return (_attempt(row), (row["document"] or b"").decode(), row["epoch"] or 0) if row else None


def _attempt(row: Row) -> Attempt:
    return Attempt(
        row["project"],
        row["run"],
        row["step"],
        row["template"],
        Phase(row["phase"]),
        Verdict(row["verdict"]),
        row["finished_at"],
        Mode(row["mode"]),
        to_text(row["fingerprint"]),
        to_text(row["static_key"]),
        None if row["inputs"] is None else rest.inputs_from_bytes(row["inputs"]),
        row["reason"],
        row["unkept"],
        row["producer_run"],
        row["producer_step"],
    )


async def same(database: Database, attempt: Attempt) -> Attempt | None:
    """The last step of another run that did just this, or tried to."""
    async with database.connection() as connection:
        row = await connection.fetchrow(
            """
            SELECT * FROM attempt
            WHERE fingerprint = $1 AND project = $2 AND run <> $3 AND finished_at <= $4 AND phase <> 'cached'
            ORDER BY finished_at DESC LIMIT 1
            """,
            to_bytes(attempt.fingerprint),
            attempt.project,
            attempt.run,
            attempt.finished_at,
        )
    return _attempt(row) if row else None


async def count(connection: Connection, hits: Sequence[Hit]) -> None:
    """Count steps that were not run, each once."""
    await connection.executemany(
        """
        INSERT INTO hit (project, run, step, fingerprint, saved_us, hit_at) VALUES ($1, $2, $3, $4, $5, $6)
        ON CONFLICT DO NOTHING
        """,
        [(h.project, h.run, h.step, to_bytes(h.fingerprint), microseconds(h.saved), h.at) for h in hits],
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
