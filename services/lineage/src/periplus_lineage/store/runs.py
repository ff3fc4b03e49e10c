"""Queries of runs, steps, templates and snapshots."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from periplus_common.postgres import Connection, Database, Row
from periplus_lineage.graph.model import StepKey
from periplus_lineage.objects import object_key
from periplus_lineage.runs.model import (
    Run,
    RunChange,
    RunWithSteps,
    SnapshotSummary,
    Step,
    in_plan_order,
    without_placeholders,
)
from periplus_lineage.wire import rows
from periplus_lineage.wire.rows import ArtifactKey, ReadContent
from periplus_model.steps import RunPhase

# A selection of runs with the counts of their steps; 7 is StepPhase.CACHED. The sum is bounded as each part of it is.
_RUNS = """
    SELECT r.project, r.id, r.created_at, r.pipeline, r.phase, r.submitted_at, r.submitted_event, r.finished_at,
        r.finished_event, s.step_count, s.cached_steps, s.saved,
        (SELECT count(final_phase) FROM step WHERE project = r.project AND run = r.id) AS finished_steps
    FROM (SELECT * FROM run AS r WHERE {condition}) AS r CROSS JOIN LATERAL (
        SELECT count(*)::int AS step_count,
            count(*) FILTER (WHERE s.final_phase = 7)::int AS cached_steps,
            least(coalesce(sum(s.saved), '0'), interval '36525 days') AS saved
        FROM actual_step AS s WHERE s.project = r.project AND s.run = r.id
    ) AS s
    ORDER BY r.created_at DESC, r.id DESC
"""
_STEP = """
    s.run, s.path, s.template, s.plan_index, s.plan_node, s.started_at, s.finished_at, s.final_phase, s.saved,
    s.finished_event, s.delay_reason
"""


class PostgresRuns:
    """Implements `RunStore` and `StepStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, project: str, run: str) -> RunWithSteps | None:
        """A run with its steps, as of one version; None if no event of it was received."""
        change = await self.changed_since(project, run, None)
        return (
            RunWithSteps(change.run, tuple(without_placeholders(in_plan_order(change.steps))))
            if change
            else None
        )

    async def changed_since(self, project: str, run: str, version: str | None) -> RunChange | None:
        """A run and its steps that changed after a version; without one, all of them.

        A version is the oldest transaction that was still running: transactions commit in another order than they
        begin, so a step may be returned again, and none is left out.
        """
        async with (
            self._database.connection() as connection,
            connection.transaction(isolation="repeatable_read"),
        ):
            row = await connection.fetchrow(
                _RUNS.format(condition="r.project = $1 AND r.id = $2"), project, run
            )
            if row is None:
                return None
            oldest_xid = await connection.fetchval("SELECT pg_snapshot_xmin(pg_current_snapshot())::text")
            steps = await connection.fetch(
                f"""
                SELECT {_STEP} FROM step AS s
                WHERE s.project = $1 AND s.run = $2 AND (s.modified_xid >= $3::text::xid8 OR s.path IN (
                    SELECT u.step FROM artifact_usage AS u
                    WHERE u.project = $1 AND u.run = $2 AND u.modified_xid >= $3::text::xid8))
                """,  # noqa: S608 - a constant
                project,
                run,
                version or "0",
            )
            return RunChange(
                rows.run(row), tuple(await _with_producers(connection, project, steps)), oldest_xid
            )

    async def steps(self, project: str, keys: Collection[StepKey]) -> Sequence[Step]:
        """Those of the steps of which an event was received, in any order."""
        async with self._database.connection() as connection:
            return await _with_producers(connection, project, await _step_rows(connection, project, keys))

    async def documents(self, project: str, digests: Collection[str]) -> dict[str, str]:
        """Documents of templates by digest."""
        async with self._database.connection() as connection:
            found = await connection.fetch(
                "SELECT digest, document FROM template WHERE project = $1 AND digest = ANY($2::bytea[])",
                project,
                [bytes.fromhex(digest.removeprefix("sha256:")) for digest in digests],
            )
        return {"sha256:" + row["digest"].hex(): row["document"] for row in found}

    async def snapshots(self, project: str, ids: Collection[str]) -> dict[str, SnapshotSummary]:
        """Snapshots by id."""
        async with self._database.connection() as connection:
            found = await connection.fetch(
                "SELECT id, event FROM snapshot WHERE project = $1 AND id = ANY($2)", project, list(ids)
            )
        return {row["id"]: rows.snapshot(row["event"]) for row in found}

    async def list(
        self, project: str, pipeline: str, phase: RunPhase, after: tuple[datetime, str] | None, limit: int
    ) -> Sequence[Run]:
        """The newest runs that follow a position in the list, without their steps."""
        # Only the conditions that apply, so that each kind of list is planned on its own index.
        condition = "r.project = $1"
        arguments: list[object] = [project]
        for clause, values in (
            (" AND r.pipeline = ${}", [pipeline] if pipeline else []),
            (" AND r.phase = ${}", [int(phase)] if phase else []),
            (" AND (r.created_at, r.id) < (${}, ${})", after or []),
            (" ORDER BY r.created_at DESC, r.id DESC LIMIT ${}", [limit]),
        ):
            if values:
                condition += clause.format(*range(len(arguments) + 1, len(arguments) + 1 + len(values)))
                arguments += values
        async with self._database.connection() as connection:
            found = await connection.fetch(_RUNS.format(condition=condition), *arguments)
        return [rows.run(row) for row in found]


async def _step_rows(connection: Connection, project: str, keys: Collection[StepKey]) -> Sequence[Row]:
    found: Sequence[Row] = await connection.fetch(
        f"""
        SELECT {_STEP} FROM unnest($2::text[], $3::text[]) AS k (run, path)
        JOIN step AS s ON s.project = $1 AND s.run = k.run AND s.path = k.path
        """,  # noqa: S608 - a constant
        project,
        [key.run for key in keys],
        [key.path for key in keys],
    )
    return found


async def _with_producers(connection: Connection, project: str, found: Sequence[Row]) -> list[Step]:
    """Steps from their rows; cached ones with the inputs and templates of their producers."""
    steps = await _steps(connection, project, found)
    producer_keys = {StepKey(step.producer_run, step.producer_step) for step in steps if step.producer_run}
    if not producer_keys:
        return steps
    producers = {
        StepKey(step.run, step.path): step
        for step in await _steps(connection, project, await _step_rows(connection, project, producer_keys))
    }
    return [
        step.with_producer(producer)
        if (producer := producers.get(StepKey(step.producer_run, step.producer_step)))
        else step
        for step in steps
    ]


async def _steps(connection: Connection, project: str, found: Sequence[Row]) -> list[Step]:
    keys = [StepKey(row["run"], row["path"]) for row in found]
    contents = await _read_contents(connection, project, keys)
    return [rows.step(row, contents.get(key, {})) for row, key in zip(found, keys, strict=True)]


async def _read_contents(
    connection: Connection, project: str, keys: Collection[StepKey]
) -> Mapping[StepKey, Mapping[ArtifactKey, ReadContent]]:
    """Digests and sizes of the steps' artifacts, which ArtifactsDigested brings and StepFinished does not."""
    found = await connection.fetch(
        """
        SELECT u.run, u.step, u.is_output, u.name, u.object_uri, u.digest, u.size_bytes
        FROM unnest($2::text[], $3::text[]) AS k (run, path)
        JOIN artifact_usage AS u
            ON u.project = $1 AND u.run = k.run AND u.step = k.path AND u.digest IS NOT NULL
        """,
        project,
        [key.run for key in keys],
        [key.path for key in keys],
    )
    contents: defaultdict[StepKey, dict[ArtifactKey, ReadContent]] = defaultdict(dict)
    for row in found:
        artifact = ArtifactKey(row["is_output"], row["name"], object_key(row["object_uri"]))
        content = ReadContent("sha256:" + row["digest"].hex(), row["size_bytes"])
        contents[StepKey(row["run"], row["step"])][artifact] = content
    return contents
