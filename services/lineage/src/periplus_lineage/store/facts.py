"""Facts in: a batch is one transaction of one statement a table.

Every statement takes its rows in the order of their keys, and the tables come in one order, so that two batches at the
same time wait for each other and never in a ring. The run comes last: its row is what they share, and is held
shortest.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from periplus_common.postgres import Connection, Database
from periplus_lineage.domain.fact import Facts, FlowFact, FlowKey, RunFact, RunKey, StepFact, StepKey
from periplus_lineage.store.notices import CHANNEL

_NOTICE = 7_900  # bytes; Postgres takes 8,000
_KNOWN = 10_000  # templates remembered, to spare their documents the way


class FactStore:
    """Keeps facts, and tells those who follow a run that something came."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._templates: set[tuple[str, bytes]] = set()

    async def add(self, facts: Facts) -> None:
        """Join the facts with what is there: all of them, or none."""
        fresh = facts.templates.keys() - self._templates
        async with self._database.transaction() as connection:
            if fresh:
                await _templates(connection, {key: facts.templates[key] for key in fresh})
            if facts.snapshots:
                await _snapshots(connection, facts.snapshots)
            if facts.steps:
                await _steps(connection, sorted(facts.steps.items()))
            if facts.flows:
                await _flows(connection, sorted(facts.flows.items()))
            if facts.links:
                await _links(connection, facts.links)
            if facts.runs:
                await _runs(connection, sorted(facts.runs.items()))
            await _notify(connection, facts)
        if len(self._templates) > _KNOWN:
            self._templates.clear()
        self._templates |= fresh


def _columns(rows: Iterable[Sequence[Any]], width: int) -> list[Sequence[Any]]:
    return list(zip(*rows, strict=True)) or [()] * width


async def _templates(connection: Connection, templates: dict[tuple[str, bytes], str]) -> None:
    await connection.execute(
        """
        INSERT INTO template (project, digest, document)
        SELECT * FROM unnest($1::text[], $2::bytea[], $3::text[])
        ON CONFLICT (project, digest) DO NOTHING
        """,
        *_columns(((*key, templates[key]) for key in sorted(templates)), 3),
    )


async def _snapshots(connection: Connection, snapshots: dict[tuple[str, str], bytes]) -> None:
    await connection.execute(
        """
        INSERT INTO snapshot AS s (project, id, body)
        SELECT * FROM unnest($1::text[], $2::text[], $3::bytea[])
        ON CONFLICT (project, id) DO UPDATE SET body = excluded.body WHERE excluded.body > s.body
        """,
        *_columns(((*key, snapshots[key]) for key in sorted(snapshots)), 3),
    )


async def _steps(connection: Connection, steps: Sequence[tuple[StepKey, StepFact]]) -> None:
    await connection.execute(
        """
        INSERT INTO step AS s
            (project, run, path, template, ordinal, planned, started_at, finished_at, finished, phase, saved)
        SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::integer[], $6::bytea[],
            $7::timestamptz[], $8::timestamptz[], $9::bytea[], $10::smallint[], $11::bigint[])
        ON CONFLICT (project, run, path) DO UPDATE SET
            template = greatest(s.template, excluded.template),
            ordinal = least(s.ordinal, excluded.ordinal),
            planned = greatest(s.planned, excluded.planned),
            started_at = least(s.started_at, excluded.started_at),
            (finished_at, finished, phase, saved) = (
                SELECT e.* FROM (VALUES
                    (s.finished_at, s.finished, s.phase, s.saved),
                    (excluded.finished_at, excluded.finished, excluded.phase, excluded.saved)
                ) AS e (at, body, phase, saved)
                ORDER BY e.at DESC NULLS LAST, e.body DESC NULLS LAST LIMIT 1),
            touched = pg_current_xact_id()
        WHERE excluded.template > s.template
            OR excluded.ordinal < coalesce(s.ordinal, 2147483647)
            OR excluded.planned > coalesce(s.planned, '')
            OR excluded.started_at < coalesce(s.started_at, 'infinity')
            OR (excluded.finished_at, excluded.finished)
                > (coalesce(s.finished_at, '-infinity'), coalesce(s.finished, ''))
        """,
        *_columns(
            ((*k, f.template, f.ordinal, f.planned, f.started_at, *(f.end or (None,) * 4)) for k, f in steps),
            11,
        ),
    )


async def _flows(connection: Connection, flows: Sequence[tuple[FlowKey, FlowFact]]) -> None:
    await connection.execute(
        """
        INSERT INTO flow AS f (project, run, path, made, name, place, object, digest, size, cached)
        SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::boolean[], $5::text[], $6::bytea[],
            $7::text[], $8::bytea[], $9::bigint[], $10::boolean[])
        ON CONFLICT (project, run, path, made, name, place) DO UPDATE SET
            digest = greatest(f.digest, excluded.digest),
            size = greatest(f.size, excluded.size),
            cached = f.cached OR excluded.cached,
            touched = pg_current_xact_id()
        WHERE excluded.digest > coalesce(f.digest, '') OR excluded.size > f.size
            OR (excluded.cached AND NOT f.cached)
        """,
        *_columns(((*key, *fact) for key, fact in flows), 10),
    )


async def _links(connection: Connection, links: set[tuple[str, str, str, str, str, bool]]) -> None:
    await connection.execute(
        """
        INSERT INTO link (project, run, path, from_run, from_path, cached)
        SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::boolean[])
        ON CONFLICT (project, run, path, from_run, from_path, cached) DO NOTHING
        """,
        *_columns(sorted(links), 6),
    )


async def _runs(connection: Connection, runs: Sequence[tuple[RunKey, RunFact]]) -> None:
    await connection.execute(
        """
        INSERT INTO run AS r
            (project, id, at, pipeline, begun, submitted_at, submitted, finished_at, finished, outcome)
        SELECT * FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::text[], $5::boolean[],
            $6::timestamptz[], $7::bytea[], $8::timestamptz[], $9::bytea[], $10::smallint[])
        ON CONFLICT (project, id) DO UPDATE SET
            at = coalesce(least(r.submitted_at, excluded.submitted_at), least(r.at, excluded.at)),
            pipeline = greatest(r.pipeline, excluded.pipeline),
            begun = r.begun OR excluded.begun,
            submitted_at = least(r.submitted_at, excluded.submitted_at),
            submitted = greatest(r.submitted, excluded.submitted),
            (finished_at, finished, outcome) = (
                SELECT e.* FROM (VALUES
                    (r.finished_at, r.finished, r.outcome),
                    (excluded.finished_at, excluded.finished, excluded.outcome)
                ) AS e (at, body, outcome)
                ORDER BY e.at DESC NULLS LAST, e.body DESC NULLS LAST LIMIT 1)
        WHERE (r.submitted_at IS NULL AND excluded.at < r.at)
            OR excluded.pipeline > r.pipeline
            OR (excluded.begun AND NOT r.begun)
            OR excluded.submitted_at < coalesce(r.submitted_at, 'infinity')
            OR excluded.submitted > coalesce(r.submitted, '')
            OR (excluded.finished_at, excluded.finished)
                > (coalesce(r.finished_at, '-infinity'), coalesce(r.finished, ''))
        """,
        *_columns(
            (
                (*k, f.at, f.pipeline, f.begun, f.submitted_at, f.submitted, *((f.end or (None,) * 4)[:3]))
                for k, f in runs
            ),
            10,
        ),
    )


async def _notify(connection: Connection, facts: Facts) -> None:
    """Tell at commit which runs changed, in as few notices as their length allows."""
    runs = sorted(facts.runs.keys() | {key[:2] for key in facts.steps} | {key[:2] for key in facts.flows})
    notices: list[str] = []
    part: list[tuple[str, ...]] = []
    length = 2
    for run in runs:
        added = len(json.dumps(run)) + 2
        if part and length + added > _NOTICE:
            notices.append(json.dumps(part))
            part, length = [], 2
        part.append(run)
        length += added
    notices.append(json.dumps(part))
    await connection.execute(
        "SELECT pg_notify($1::text || '_' || current_schema(), notice) FROM unnest($2::text[]) AS notice",
        CHANNEL,
        notices,
    )
