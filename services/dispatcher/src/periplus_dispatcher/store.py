"""Runs, published steps and answers to gates. All SQL of this service is in this file."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta

from pydantic import TypeAdapter

from periplus_common import outbox, telemetry
from periplus_common.errors import Conflict
from periplus_common.postgres import Connection, Database, Row
from periplus_common.retention import Retention
from periplus_dispatcher.domain import (
    Delay,
    GateAnswer,
    ObservedWorkflow,
    Reproduced,
    Run,
    RunState,
    StepNode,
    StepStatus,
)
from periplus_dispatcher.wire import events
from periplus_model.steps import CacheMode, Outputs, RunPhase, StepPhase

_RUN_COLUMNS = """
    id, project, request_id, request_digest, pipeline, phase, manifest, state::text, snapshot, cache_mode,
    outputs::text, message, is_cancelled, submitted_at, finished_at, traceparent, namespace, workflow, workflow_uid,
    reproduces, reproduced_step
"""
MAX_DELAY_CHANGES = 100
"""Changes of what delays one step that are published: a pod alternates between reasons as long as it is not started."""

_STATE = TypeAdapter(RunState)
_ANSWER = TypeAdapter(GateAnswer)
_OUTPUTS = TypeAdapter(Outputs)


_runs = telemetry.counter(
    "periplus.runs",
    unit="{run}",
    description="Runs that were accepted (pending, or succeeded at once) and runs that finished, by phase.",
    attributes=("periplus.phase",),
)
_steps = telemetry.counter(
    "periplus.steps",
    unit="{step}",
    description="Steps that reached a phase.",
    attributes=("periplus.phase",),
)

_delays = telemetry.counter(
    "periplus.steps.delayed",
    unit="{delay}",
    description="Reasons that delayed a step: a pending pod, a lock, a failed attempt.",
)


def retentions(
    runs: timedelta | None, published: timedelta | None, gate_answers: timedelta | None
) -> list[Retention]:
    """How long rows are kept after their run has finished; None: for ever. Open runs keep all their rows.

    A run stays as long as the rows that belong to it.
    """
    return [
        _rows_of_finished_runs("published", published),
        _rows_of_finished_runs("gate_answer", gate_answers),
        Retention.older_than(
            "run",
            "finished_at",
            runs,
            unless="EXISTS (SELECT FROM published WHERE run = candidate.id)"
            " OR EXISTS (SELECT FROM gate_answer WHERE run = candidate.id)",
        ),
    ]


def _rows_of_finished_runs(table: str, keep_for: timedelta | None) -> Retention:
    return Retention(
        table,
        keep_for,
        f"""
        DELETE FROM {table} WHERE ctid = ANY (ARRAY (
            SELECT candidate.ctid FROM {table} AS candidate JOIN run ON run.id = candidate.run
            WHERE run.finished_at < now() - $1::interval
            LIMIT $2::int FOR UPDATE OF candidate SKIP LOCKED
        ))
        """,
    )


class PostgresRuns:
    """The runs, in Postgres."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, project: str, request_id: str) -> Run | None:
        async with self._database.connection() as connection:
            row = await connection.fetchrow(
                f"SELECT {_RUN_COLUMNS} FROM run WHERE project = $1 AND request_id = $2", project, request_id
            )
        return _run(row) if row else None

    async def get(self, run: str) -> Run | None:
        async with self._database.connection() as connection:
            row = await connection.fetchrow(f"SELECT {_RUN_COLUMNS} FROM run WHERE id = $1", run)
        return _run(row) if row else None

    async def get_resolved(self, run: str) -> str:
        async with self._database.connection() as connection:
            row = await connection.fetchrow("SELECT manifest FROM resolved_manifest WHERE run = $1", run)
        return row["manifest"] if row else ""

    async def list_open(self) -> list[str]:
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                "SELECT id FROM run WHERE finished_at IS NULL ORDER BY submitted_at"
            )
        return [row["id"] for row in rows]

    async def add(self, run: Run, statuses: Sequence[StepStatus], nodes: Sequence[StepNode]) -> Run:
        async with self._database.transaction() as connection:
            row = await connection.fetchrow(
                """
                INSERT INTO run (id, project, request_id, request_digest, pipeline, phase, manifest, state,
                                 snapshot, cache_mode, outputs, submitted_at, finished_at, traceparent,
                                 namespace, workflow, workflow_uid, reproduces, reproduced_step)
                VALUES ($1, $2, $3, $4, $5, $6, $7, $8::json, $9, $10, $11::json, $12, $13, $14, $15, $16, $17,
                        $18, $19)
                ON CONFLICT DO NOTHING
                RETURNING id
                """,
                run.id, run.project, run.request_id, run.request_digest, run.pipeline, run.phase.label,
                run.manifest, _STATE.dump_json(run.state).decode(), run.snapshot,
                run.cache_mode.label if run.cache_mode else None,
                _OUTPUTS.dump_json(run.outputs).decode(), run.submitted_at, run.finished_at, run.traceparent,
                *((found.namespace, found.name, found.uid) if (found := run.observed) else (None, None, None)),
                *((of.run, of.step) if (of := run.reproduces) else ("", "")),
            )  # fmt: skip
            if row is not None:
                if run.resolved:
                    await connection.execute(
                        "INSERT INTO resolved_manifest (run, manifest) VALUES ($1, $2)", run.id, run.resolved
                    )
                queued = [
                    events.run_submitted(run, nodes),
                    *(events.step_event(run, step) for step in statuses),
                ]
                if run.phase.is_final:
                    queued.append(
                        events.run_finished(run, len(statuses), run.state.cached_steps, run.state.saved)
                    )
                await outbox.add(connection, queued)
        if row is not None:
            _runs.add(1, {"periplus.phase": run.phase.label})
            _count(step.phase.label for step in statuses)
            return run
        existing = await self.find(run.project, run.request_id)
        if existing is None:
            raise Conflict(
                f"the run of another request has the id {run.id}",
                fix="send the request with a new request_id",
            )
        return existing

    async def set_running(self, run: str) -> None:
        async with self._database.connection() as connection:
            await connection.execute(
                "UPDATE run SET phase = 'running' WHERE id = $1 AND phase = 'pending'", run
            )

    async def set_cancelled(self, run: str) -> None:
        async with self._database.connection() as connection:
            await connection.execute("UPDATE run SET is_cancelled = true WHERE id = $1", run)

    async def get_answers(self, run: str) -> dict[str, GateAnswer]:
        async with self._database.connection() as connection:
            rows = await connection.fetch("SELECT node, answer::text FROM gate_answer WHERE run = $1", run)
        return {row["node"]: _ANSWER.validate_json(row["answer"]) for row in rows}

    async def add_answers(self, run: str, answers: Mapping[str, GateAnswer]) -> None:
        async with self._database.connection() as connection:
            await connection.execute(
                """
                INSERT INTO gate_answer (run, node, answer)
                SELECT $1, node, answer FROM unnest($2::text[], $3::json[]) AS new (node, answer)
                ON CONFLICT DO NOTHING
                """,
                run, list(answers), [_ANSWER.dump_json(answer).decode() for answer in answers.values()],
            )  # fmt: skip

    async def publish(self, run: Run, statuses: Sequence[StepStatus]) -> None:
        async with self._database.transaction() as connection:
            new = await _unpublished(connection, run, statuses)
            await outbox.add(connection, [event for step in new for event in events.step_events(run, step)])
        _count(step.phase.label for step in new)

    async def get_delays(self, run: str) -> dict[str, str]:
        async with self._database.connection() as connection:
            rows = await connection.fetch("SELECT step, reason FROM step_delay WHERE run = $1", run)
        return {row["step"]: row["reason"] for row in rows}

    async def publish_delays(self, run: Run, delays: Sequence[Delay], at: datetime) -> None:
        by_path = {delay.path: delay for delay in delays}
        async with self._database.transaction() as connection:
            rows = await connection.fetch(
                """
                INSERT INTO step_delay AS present (run, step, reason)
                SELECT $1, step, reason FROM unnest($2::text[], $3::text[]) AS new (step, reason)
                WHERE EXISTS (SELECT FROM run WHERE id = $1 AND finished_at IS NULL)
                ON CONFLICT (run, step) DO UPDATE SET reason = excluded.reason, changes = present.changes + 1
                WHERE present.reason <> excluded.reason AND present.changes < $4
                RETURNING step, changes
                """,
                run.id, list(by_path), [delay.reason for delay in by_path.values()], MAX_DELAY_CHANGES,
            )  # fmt: skip
            changed = [(by_path[row["step"]], row["changes"]) for row in rows]
            await outbox.add(
                connection, [events.step_delayed(run, delay, number, at) for delay, number in changed]
            )
        _delays.add(sum(1 for delay, _ in changed if delay.reason))

    async def finish(
        self,
        run: Run,
        statuses: Sequence[StepStatus],
        phase: RunPhase,
        message: str,
        outputs: Outputs,
        at: datetime,
    ) -> None:
        async with self._database.transaction() as connection:
            new = await _unpublished(connection, run, statuses)
            queued = [event for step in new for event in events.step_events(run, step)]
            row = await connection.fetchrow(
                f"""
                UPDATE run SET phase = $2, message = $3, outputs = $4::json, finished_at = $5
                WHERE id = $1 AND finished_at IS NULL
                RETURNING {_RUN_COLUMNS}
                """,
                run.id, phase.label, message.replace("\0", "\N{REPLACEMENT CHARACTER}"),
                _OUTPUTS.dump_json(outputs).decode(), at,
            )  # fmt: skip
            if row is not None:
                counts = await connection.fetchrow(
                    """
                    SELECT count(DISTINCT step) FILTER (WHERE phase <> 'running') AS finished,
                        count(DISTINCT step) FILTER (WHERE phase = 'cached') AS cached,
                        coalesce(sum(saved) FILTER (WHERE phase = 'cached'), '0') AS saved
                    FROM published WHERE run = $1
                    """,
                    run.id,
                )
                assert counts is not None  # an aggregate always has a row
                queued.append(
                    events.run_finished(_run(row), counts["finished"], counts["cached"], counts["saved"])
                )
                await connection.execute("DELETE FROM step_delay WHERE run = $1", run.id)
            await outbox.add(connection, queued)
        _count(step.phase.label for step in new)
        if row is not None:
            _runs.add(1, {"periplus.phase": phase.label})


def _count(phases: Iterable[str]) -> None:
    for phase, count in Counter(phases).items():
        _steps.add(count, {"periplus.phase": phase})


async def _unpublished(connection: Connection, run: Run, statuses: Sequence[StepStatus]) -> list[StepStatus]:
    """The statuses that were not published before; from now on they count as published."""
    by_key = {step.key: step for step in statuses}
    rows = await connection.fetch(
        """
        INSERT INTO published (run, step, phase, outer_attempt, saved)
        SELECT $1, step, phase, outer_attempt, saved
        FROM unnest($2::text[], $3::text[], $4::int[], $5::interval[]) AS new (step, phase, outer_attempt, saved)
        ON CONFLICT DO NOTHING
        RETURNING step, phase, outer_attempt
        """,
        run.id,
        [path for path, _, _ in by_key], [phase.label for _, phase, _ in by_key], [attempt for _, _, attempt in by_key],
        [step.verdict.saved if step.verdict else timedelta() for step in by_key.values()],
    )  # fmt: skip
    return [by_key[row["step"], StepPhase.from_label(row["phase"]), row["outer_attempt"]] for row in rows]


def _run(row: Row) -> Run:
    return Run(
        project=row["project"],
        id=row["id"],
        request_id=row["request_id"],
        request_digest=row["request_digest"],
        pipeline=row["pipeline"],
        phase=RunPhase.from_label(row["phase"]),
        manifest=row["manifest"],
        state=_STATE.validate_json(row["state"]),
        snapshot=row["snapshot"],
        cache_mode=CacheMode.from_label(row["cache_mode"]) if row["cache_mode"] else None,
        submitted_at=row["submitted_at"],
        outputs=_OUTPUTS.validate_json(row["outputs"]),
        finished_at=row["finished_at"],
        message=row["message"],
        is_cancelled=row["is_cancelled"],
        traceparent=row["traceparent"],
        observed=ObservedWorkflow(row["namespace"], row["workflow"], row["workflow_uid"])
        if row["workflow_uid"] is not None
        else None,
        reproduces=Reproduced(row["reproduces"], row["reproduced_step"]) if row["reproduces"] else None,
    )
