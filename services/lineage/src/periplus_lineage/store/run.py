"""Runs and steps out."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from periplus_common.postgres import Connection, Database, Row
from periplus_lineage.domain.graph import StepKey, object_key
from periplus_lineage.domain.run import Change, Recorded, Run, RunPhase, Snapshot, Step, in_order, unfolded
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
        FROM real_step AS s WHERE s.project = r.project AND s.run = r.id
    ) AS s
    ORDER BY r.at DESC, r.id DESC
"""
_STEP = """
    s.run, s.path, s.template, s.ordinal, s.planned, s.started_at, s.finished_at, s.phase, s.saved, s.finished
"""


class RunStore:
    """Answers what is known of runs."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, project: str, run: str) -> Recorded | None:
        """A run with its steps, as of one moment; None if nothing is known of it."""
        change = await self.changed(project, run, None)
        return Recorded(change.run, tuple(unfolded(in_order(change.steps)))) if change else None

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
                f"""
                SELECT {_STEP} FROM step AS s
                WHERE s.project = $1 AND s.run = $2 AND (s.touched >= $3::text::xid8 OR s.path IN (
                    SELECT f.path FROM flow AS f
                    WHERE f.project = $1 AND f.run = $2 AND f.touched >= $3::text::xid8))
                """,  # noqa: S608 - a constant
                project,
                run,
                since or "0",
            )
            return Change(record.run(row), tuple(await _whole(connection, project, steps)), moment)

    async def steps(self, project: str, keys: Collection[StepKey]) -> Sequence[Step]:
        """Those of the steps of any runs that something is known of, in no order."""
        async with self._database.connection() as connection:
            return await _whole(connection, project, await _rows(connection, project, keys))

    async def documents(self, project: str, digests: Collection[str]) -> dict[str, str]:
        """What templates do, by the digests that steps name."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                "SELECT digest, document FROM template WHERE project = $1 AND digest = ANY($2::bytea[])",
                project,
                [bytes.fromhex(digest.removeprefix("sha256:")) for digest in digests],
            )
        return {"sha256:" + row["digest"].hex(): row["document"] for row in rows}

    async def snapshots(self, project: str, identities: Collection[str]) -> dict[str, Snapshot]:
        """What was told of snapshots, by their ids."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                "SELECT id, body FROM snapshot WHERE project = $1 AND id = ANY($2)", project, list(identities)
            )
        return {row["id"]: record.snapshot(row["body"]) for row in rows}

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


async def _rows(connection: Connection, project: str, keys: Collection[StepKey]) -> Sequence[Row]:
    rows: Sequence[Row] = await connection.fetch(
        f"""
        SELECT {_STEP} FROM unnest($2::text[], $3::text[]) AS k (run, path)
        JOIN step AS s ON s.project = $1 AND s.run = k.run AND s.path = k.path
        """,  # noqa: S608 - a constant
        project,
        [key.run for key in keys],
        [key.path for key in keys],
    )
    return rows


async def _whole(connection: Connection, project: str, rows: Sequence[Row]) -> list[Step]:
    """Steps from their rows, those from the cache with what the rows of their makers tell."""
    steps = await _read(connection, project, rows)
    wanted = {StepKey(step.producer_run, step.producer_step) for step in steps if step.producer_run}
    if not wanted:
        return steps
    made = await _read(connection, project, await _rows(connection, project, wanted))
    makers = {StepKey(step.run, step.path): step for step in made}
    return [
        step.like(maker) if (maker := makers.get(StepKey(step.producer_run, step.producer_step))) else step
        for step in steps
    ]


async def _read(connection: Connection, project: str, rows: Sequence[Row]) -> list[Step]:
    keys = [StepKey(row["run"], row["path"]) for row in rows]
    known = await digests(connection, project, keys)
    return [record.step(row, known.get(key, {})) for row, key in zip(rows, keys, strict=True)]


async def digests(
    connection: Connection, project: str, keys: Collection[StepKey]
) -> Mapping[StepKey, Digests]:
    """The digests that were told apart of the artifacts of some steps."""
    rows = await connection.fetch(
        """
        SELECT f.run, f.path, f.made, f.name, f.object, f.digest, f.size
        FROM unnest($2::text[], $3::text[]) AS k (run, path)
        JOIN flow AS f ON f.project = $1 AND f.run = k.run AND f.path = k.path AND f.digest IS NOT NULL
        """,
        project,
        [key.run for key in keys],
        [key.path for key in keys],
    )
    known: defaultdict[StepKey, dict[tuple[bool, str, str], tuple[str, int]]] = defaultdict(dict)
    for row in rows:
        artifact = row["made"], row["name"], object_key(row["object"])
        known[StepKey(row["run"], row["path"])][artifact] = ("sha256:" + row["digest"].hex(), row["size"])
    return known
