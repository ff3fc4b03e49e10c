"""Runs and steps out."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime

from periplus_common.postgres import Connection, Database
from periplus_lineage.domain.graph import object_key
from periplus_lineage.domain.run import Change, Recorded, Run, RunPhase, in_order
from periplus_lineage.wire import record
from periplus_lineage.wire.noun import Digests

# What is asked of `r`, a selection of runs; 7 is StepPhase.CACHED.
_RUN = """
    SELECT r.project, r.id, r.at, r.pipeline, r.phase, r.submitted_at, r.submitted, r.finished_at, r.finished,
        s.step_count, s.cached_steps, s.saved
    FROM (SELECT * FROM run AS r WHERE {which}) AS r CROSS JOIN LATERAL (
        SELECT count(*)::int AS step_count,
            count(*) FILTER (WHERE s.phase = 7)::int AS cached_steps,
            coalesce(sum(s.saved), 0)::bigint AS saved
        FROM step AS s WHERE s.project = r.project AND s.run = r.id
    ) AS s
    ORDER BY r.at DESC, r.id DESC
"""


class RunStore:
    """Answers what is known of runs."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, project: str, run: str) -> Recorded | None:
        """A run with its steps, as of one moment; None if nothing is known of it."""
        change = await self.changed(project, run, None)
        return Recorded(change.run, in_order(list(change.steps))) if change else None

    async def changed(self, project: str, run: str, since: str | None) -> Change | None:
        """A run and its steps that changed since a moment that an earlier answer named; all of them without one.

        Transactions commit in another order than they begin, so a step may be told again; none is left out.
        """
        async with (
            self._database.connection() as connection,
            connection.transaction(isolation="repeatable_read"),
        ):
            row = await connection.fetchrow(_RUN.format(which="r.project = $1 AND r.id = $2"), project, run)
            if row is None:
                return None
            moment = await connection.fetchval("SELECT pg_snapshot_xmin(pg_current_snapshot())::text")
            steps = await connection.fetch(
                """
                SELECT s.run, s.path, s.template, s.ordinal, s.planned, s.started_at, s.finished_at, s.phase,
                    s.saved, s.finished
                FROM step AS s
                WHERE s.project = $1 AND s.run = $2 AND (s.touched >= $3::text::xid8 OR s.path IN (
                    SELECT f.path FROM flow AS f
                    WHERE f.project = $1 AND f.run = $2 AND f.touched >= $3::text::xid8))
                """,
                project,
                run,
                since or "0",
            )
            known = await digests(connection, project, run, [step["path"] for step in steps])
            return Change(
                record.run(row), tuple(record.step(s, known.get(s["path"], {})) for s in steps), moment
            )

    async def list(
        self, project: str, pipeline: str, phase: RunPhase, before: tuple[datetime, str] | None, limit: int
    ) -> Sequence[Run]:
        """The newest runs, those that come after a place in the list, without their steps."""
        # Only the conditions that are asked for, so that each kind of list has the plan that its index gives.
        which = "r.project = $1"
        arguments: list[object] = [project]
        for condition, wanted in (
            (" AND r.pipeline = ${}", [pipeline] if pipeline else []),
            (" AND r.phase = ${}", [int(phase)] if phase else []),
            (" AND (r.at, r.id) < (${}, ${})", before or []),
            (" ORDER BY r.at DESC, r.id DESC LIMIT ${}", [limit]),
        ):
            if wanted:
                which += condition.format(*range(len(arguments) + 1, len(arguments) + 1 + len(wanted)))
                arguments += wanted
        async with self._database.connection() as connection:
            rows = await connection.fetch(_RUN.format(which=which), *arguments)
        return [record.run(row) for row in rows]


async def digests(connection: Connection, project: str, run: str, paths: Sequence[str]) -> dict[str, Digests]:
    """The digests that are known of the artifacts of some steps of a run, by path."""
    rows = await connection.fetch(
        """
        SELECT f.path, f.made, f.name, f.object, f.digest, f.size FROM flow AS f
        WHERE f.project = $1 AND f.run = $2 AND f.path = ANY($3) AND f.digest IS NOT NULL
        """,
        project,
        run,
        paths,
    )
    known: defaultdict[str, dict[tuple[bool, str, str], tuple[str, int]]] = defaultdict(dict)
    for row in rows:
        key = object_key(row["object"])
        known[row["path"]][row["made"], row["name"], key] = ("sha256:" + row["digest"].hex(), row["size"])
    return dict(known)
