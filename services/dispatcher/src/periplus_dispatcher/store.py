"""Runs, what was told of their steps, and answers to gates. All of this service's SQL is in this file."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from periplus_common import outbox
from periplus_common.bus import CloudEvent
from periplus_common.errors import Conflict
from periplus_common.postgres import Connection, Database, Row
from periplus_dispatcher.domain import Outputs, Phase
from periplus_dispatcher.observe import Seen
from periplus_dispatcher.record import ANSWER, OUTPUTS, RECORD, Answer, Run
from periplus_dispatcher.wire import events as wire

Json = dict[str, Any]

_COLUMNS = """
    id, project, request_id, request_digest, pipeline, phase, manifest, record::text, snapshot, cache,
    outputs::text, message, cancelled, submitted_at, finished_at
"""


class PostgresRuns:
    """The record of runs, in Postgres."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, project: str, request_id: str) -> Run | None:
        async with self._database.connection() as connection:
            row = await connection.fetchrow(
                f"SELECT {_COLUMNS} FROM run WHERE project = $1 AND request_id = $2", project, request_id
            )
        return _run(row) if row else None

    async def get(self, run: str) -> Run | None:
        async with self._database.connection() as connection:
            row = await connection.fetchrow(f"SELECT {_COLUMNS} FROM run WHERE id = $1", run)
        return _run(row) if row else None

    async def open(self) -> list[str]:
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                "SELECT id FROM run WHERE finished_at IS NULL ORDER BY submitted_at"
            )
        return [row["id"] for row in rows]

    async def add(self, run: Run, steps: Sequence[Seen], nodes: Sequence[Json]) -> Run:
        async with self._database.transaction() as connection:
            row = await connection.fetchrow(
                f"""
                INSERT INTO run (id, project, request_id, request_digest, pipeline, phase, manifest, record,
                                 snapshot, cache, outputs, submitted_at, finished_at)
                VALUES ($1, $2, $3, $4, $5, $6, $7, $8::json, $9, $10, $11::json, $12, $13)
                ON CONFLICT DO NOTHING
                RETURNING {_COLUMNS}
                """,
                run.id, run.project, run.request_id, run.request_digest, run.pipeline, run.phase.value,
                run.manifest, RECORD.dump_json(run.record).decode(), run.snapshot, run.cache,
                OUTPUTS.dump_json(run.outputs).decode(), run.submitted_at, run.finished_at,
            )  # fmt: skip
            if row is not None:
                events = [wire.run_submitted(run, nodes), *(wire.step_event(run, step) for step in steps)]
                if run.phase.final:
                    events.append(wire.run_finished(run, run.record.cached, run.record.saved))
                await outbox.add(connection, events)
                return run
        kept = await self.find(run.project, run.request_id)
        if kept is None:
            raise Conflict(
                f"another request has a run of the name {run.id}",
                fix="send the request with a new request_id",
            )
        return kept

    async def started(self, run: str) -> None:
        async with self._database.connection() as connection:
            await connection.execute(
                "UPDATE run SET phase = 'running' WHERE id = $1 AND phase = 'pending'", run
            )

    async def cancel(self, run: str) -> None:
        async with self._database.connection() as connection:
            await connection.execute("UPDATE run SET cancelled = true WHERE id = $1", run)

    async def answers(self, run: str) -> dict[str, Answer]:
        async with self._database.connection() as connection:
            rows = await connection.fetch("SELECT node, answer::text FROM answer WHERE run = $1", run)
        return {row["node"]: ANSWER.validate_json(row["answer"]) for row in rows}

    async def answer(self, run: str, answers: Mapping[str, Answer]) -> None:
        async with self._database.connection() as connection:
            await connection.execute(
                """
                INSERT INTO answer (run, node, answer)
                SELECT $1, node, answer FROM unnest($2::text[], $3::json[]) AS given (node, answer)
                ON CONFLICT DO NOTHING
                """,
                run, list(answers), [ANSWER.dump_json(answer).decode() for answer in answers.values()],
            )  # fmt: skip

    async def tell(self, run: Run, steps: Sequence[Seen]) -> None:
        async with self._database.transaction() as connection:
            await outbox.add(connection, await _new(connection, run, steps))

    async def finish(
        self, run: Run, steps: Sequence[Seen], phase: Phase, message: str, outputs: Outputs, at: datetime
    ) -> None:
        async with self._database.transaction() as connection:
            events = await _new(connection, run, steps)
            row = await connection.fetchrow(
                f"""
                UPDATE run SET phase = $2, message = $3, outputs = $4::json, finished_at = $5
                WHERE id = $1 AND finished_at IS NULL
                RETURNING {_COLUMNS}
                """,
                run.id, phase.value, message.replace("\0", "\N{REPLACEMENT CHARACTER}"), OUTPUTS.dump_json(outputs).decode(), at,
            )  # fmt: skip
            if row is not None:
                cached = await connection.fetchrow(
                    "SELECT count(*) AS steps, coalesce(sum(saved), 0) AS saved FROM told "
                    "WHERE run = $1 AND phase = 'cached'",
                    run.id,
                )
                assert cached is not None  # an aggregate always has its row
                events.append(wire.run_finished(_run(row), cached["steps"], cached["saved"]))
            await outbox.add(connection, events)


async def _new(connection: Connection, run: Run, steps: Sequence[Seen]) -> list[CloudEvent]:
    """The events of those steps that nobody has told in their phase."""
    by_key = {(step.path, step.phase.value): step for step in steps}
    rows = await connection.fetch(
        """
        INSERT INTO told (run, step, phase, saved)
        SELECT $1, step, phase, saved
        FROM unnest($2::text[], $3::text[], $4::float8[]) AS given (step, phase, saved)
        ON CONFLICT DO NOTHING
        RETURNING step, phase
        """,
        run.id, [path for path, _ in by_key], [phase for _, phase in by_key],
        [step.resolved.saved if step.resolved else 0.0 for step in by_key.values()],
    )  # fmt: skip
    return [wire.step_event(run, by_key[row["step"], row["phase"]]) for row in rows]


def _run(row: Row) -> Run:
    return Run(
        project=row["project"],
        id=row["id"],
        request_id=row["request_id"],
        request_digest=row["request_digest"],
        pipeline=row["pipeline"],
        phase=Phase(row["phase"]),
        manifest=row["manifest"],
        record=RECORD.validate_json(row["record"]),
        snapshot=row["snapshot"],
        cache=row["cache"],
        submitted_at=row["submitted_at"],
        outputs=OUTPUTS.validate_json(row["outputs"]),
        finished_at=row["finished_at"],
        message=row["message"],
        cancelled=row["cancelled"],
    )
