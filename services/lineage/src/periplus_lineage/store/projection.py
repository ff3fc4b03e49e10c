"""Writes a `ProjectionDelta`: one transaction, one statement for each table.

Every statement takes its rows in the order of their keys, and the tables are written in the same order, so two
concurrent batches wait for each other and never deadlock. `run` is last: all batches of a run write the same row of it,
which is then locked for the shortest time.
"""

import json
import time
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any

from periplus_common.postgres import Connection, Database
from periplus_lineage.projection import (
    DependencyKey,
    ProjectionDelta,
    RunKey,
    RunUpdate,
    StepKey,
    StepUpdate,
    UsageKey,
    UsageUpdate,
)
from periplus_lineage.store.notifications import CHANNEL

_MAX_NOTIFICATION_BYTES = 7_900  # Postgres allows 8,000
_MAX_REMEMBERED_TEMPLATES = 10_000
_REMEMBER_TEMPLATES = timedelta(hours=1)
"""For longer, and a template in use could become old enough for retention: `used_at` is written when it is stored."""


class ProjectionStore:
    """Merges deltas into the tables, and notifies those who watch the runs."""

    def __init__(self, database: Database, remember_templates: timedelta = _REMEMBER_TEMPLATES) -> None:
        self._database = database
        # Templates that were stored lately: most steps bring a document that another step has brought before.
        self._stored_templates: set[tuple[str, bytes]] = set()
        self._remember_seconds = remember_templates.total_seconds()
        self._forget_at = time.monotonic() + self._remember_seconds

    async def apply(self, delta: ProjectionDelta) -> None:
        """Merge the delta into the tables: all of it, or nothing."""
        if len(self._stored_templates) > _MAX_REMEMBERED_TEMPLATES or time.monotonic() >= self._forget_at:
            self._stored_templates.clear()
            self._forget_at = time.monotonic() + self._remember_seconds
        new_templates = delta.templates.keys() - self._stored_templates
        async with self._database.transaction() as connection:
            if new_templates:
                await _add_templates(connection, {key: delta.templates[key] for key in new_templates})
            if delta.snapshots:
                await _merge_snapshots(connection, delta.snapshots)
            if delta.steps:
                await _merge_steps(connection, sorted(delta.steps.items()))
            if delta.usages:
                await _merge_usages(connection, sorted(delta.usages.items()))
            if delta.dependencies:
                await _add_dependencies(connection, delta.dependencies)
            if delta.runs:
                await _merge_runs(connection, sorted(delta.runs.items()))
            await _notify(connection, delta)
        self._stored_templates |= new_templates


def _columns(rows: Iterable[Sequence[Any]], width: int) -> list[Sequence[Any]]:
    return list(zip(*rows, strict=True)) or [()] * width


async def _add_templates(connection: Connection, templates: dict[tuple[str, bytes], str]) -> None:
    await connection.execute(
        """
        INSERT INTO template AS t (project, digest, document)
        SELECT * FROM unnest($1::text[], $2::bytea[], $3::text[])
        ON CONFLICT (project, digest) DO UPDATE SET used_at = now()
        WHERE t.used_at < now() - interval '1 hour'
        """,
        *_columns(((*key, templates[key]) for key in sorted(templates)), 3),
    )


async def _merge_snapshots(connection: Connection, snapshots: dict[tuple[str, str], bytes]) -> None:
    await connection.execute(
        """
        INSERT INTO snapshot AS s (project, id, event)
        SELECT * FROM unnest($1::text[], $2::text[], $3::bytea[])
        ON CONFLICT (project, id) DO UPDATE SET event = excluded.event WHERE excluded.event > s.event
        """,
        *_columns(((*key, snapshots[key]) for key in sorted(snapshots)), 3),
    )


async def _merge_steps(connection: Connection, steps: Sequence[tuple[StepKey, StepUpdate]]) -> None:
    await connection.execute(
        """
        INSERT INTO step AS s (project, run, path, template, plan_index, plan_node, started_at,
            finished_at, finished_event, final_phase, saved, template_digest, delay_at, delay_reason)
        SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::integer[], $6::bytea[],
            $7::timestamptz[], $8::timestamptz[], $9::bytea[], $10::smallint[], $11::interval[], $12::bytea[],
            $13::timestamptz[], $14::text[])
        ON CONFLICT (project, run, path) DO UPDATE SET
            template = greatest(s.template, excluded.template),
            plan_index = least(s.plan_index, excluded.plan_index),
            plan_node = greatest(s.plan_node, excluded.plan_node),
            started_at = least(s.started_at, excluded.started_at),
            (finished_at, finished_event, final_phase, saved, template_digest) = (
                SELECT e.* FROM (VALUES
                    (s.finished_at, s.finished_event, s.final_phase, s.saved, s.template_digest),
                    (excluded.finished_at, excluded.finished_event, excluded.final_phase, excluded.saved,
                        excluded.template_digest)
                ) AS e (at, event, phase, saved, template_digest)
                ORDER BY e.at DESC NULLS LAST, e.event DESC NULLS LAST LIMIT 1),
            (delay_at, delay_reason) = (
                SELECT d.* FROM (VALUES
                    (s.delay_at, s.delay_reason), (excluded.delay_at, excluded.delay_reason)
                ) AS d (at, reason)
                ORDER BY d.at DESC NULLS LAST, d.reason DESC NULLS LAST LIMIT 1),
            modified_xid = pg_current_xact_id()
        WHERE excluded.template > s.template
            OR excluded.plan_index < coalesce(s.plan_index, 2147483647)
            OR excluded.plan_node > coalesce(s.plan_node, '')
            OR excluded.started_at < coalesce(s.started_at, 'infinity')
            OR (excluded.finished_at, excluded.finished_event)
                > (coalesce(s.finished_at, '-infinity'), coalesce(s.finished_event, ''))
            OR (excluded.delay_at, excluded.delay_reason)
                > (coalesce(s.delay_at, '-infinity'), coalesce(s.delay_reason, ''))
        """,
        *_columns(
            (
                (*key, step.template, step.plan_index, step.plan_node, step.started_at)
                + (step.finish or (None,) * 5)
                + (step.delay or (None,) * 2)
                for key, step in steps
            ),
            14,
        ),
    )


async def _merge_usages(connection: Connection, usages: Sequence[tuple[UsageKey, UsageUpdate]]) -> None:
    await connection.execute(
        """
        INSERT INTO artifact_usage AS u
            (project, run, step, is_output, name, object_hash, object_uri, digest, size_bytes, cached)
        SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::boolean[], $5::text[], $6::bytea[],
            $7::text[], $8::bytea[], $9::bigint[], $10::boolean[])
        ON CONFLICT (project, run, step, is_output, name, object_hash) DO UPDATE SET
            digest = greatest(u.digest, excluded.digest),
            size_bytes = greatest(u.size_bytes, excluded.size_bytes),
            cached = u.cached OR excluded.cached,
            modified_xid = pg_current_xact_id()
        WHERE excluded.digest > coalesce(u.digest, '') OR excluded.size_bytes > u.size_bytes
            OR (excluded.cached AND NOT u.cached)
        """,
        *_columns(((*key, *usage) for key, usage in usages), 10),
    )


async def _add_dependencies(connection: Connection, dependencies: set[DependencyKey]) -> None:
    await connection.execute(
        """
        INSERT INTO step_dependency (project, run, step, upstream_run, upstream_step, cached)
        SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::boolean[])
        ON CONFLICT (project, run, step, upstream_run, upstream_step, cached) DO NOTHING
        """,
        *_columns(sorted(dependencies), 6),
    )


async def _merge_runs(connection: Connection, runs: Sequence[tuple[RunKey, RunUpdate]]) -> None:
    await connection.execute(
        """
        INSERT INTO run AS r (project, id, created_at, pipeline, started, submitted_at, submitted_event, snapshot,
            finished_at, finished_event, final_phase)
        SELECT * FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::text[], $5::boolean[],
            $6::timestamptz[], $7::bytea[], $8::text[], $9::timestamptz[], $10::bytea[], $11::smallint[])
        ON CONFLICT (project, id) DO UPDATE SET
            created_at = coalesce(least(r.submitted_at, excluded.submitted_at), least(r.created_at, excluded.created_at)),
            pipeline = greatest(r.pipeline, excluded.pipeline),
            started = r.started OR excluded.started,
            submitted_at = least(r.submitted_at, excluded.submitted_at),
            submitted_event = greatest(r.submitted_event, excluded.submitted_event),
            snapshot = greatest(r.snapshot, excluded.snapshot),
            (finished_at, finished_event, final_phase) = (
                SELECT e.* FROM (VALUES
                    (r.finished_at, r.finished_event, r.final_phase),
                    (excluded.finished_at, excluded.finished_event, excluded.final_phase)
                ) AS e (at, event, phase)
                ORDER BY e.at DESC NULLS LAST, e.event DESC NULLS LAST LIMIT 1)
        WHERE (r.submitted_at IS NULL AND excluded.created_at < r.created_at)
            OR excluded.pipeline > r.pipeline
            OR (excluded.started AND NOT r.started)
            OR excluded.submitted_at < coalesce(r.submitted_at, 'infinity')
            OR excluded.submitted_event > coalesce(r.submitted_event, '')
            OR excluded.snapshot > r.snapshot
            OR (excluded.finished_at, excluded.finished_event)
                > (coalesce(r.finished_at, '-infinity'), coalesce(r.finished_event, ''))
        """,
        *_columns(
            (
                (
                    *key,
                    run.created_at,
                    run.pipeline,
                    run.started,
                    run.submitted_at,
                    run.submitted_event,
                    run.snapshot,
                )
                + (run.finish[:3] if run.finish else (None,) * 3)
                for key, run in runs
            ),
            11,
        ),
    )


async def _notify(connection: Connection, delta: ProjectionDelta) -> None:
    """Send the keys of the changed runs when the transaction commits, in as few notifications as their size allows."""
    runs = sorted(delta.runs.keys() | {key[:2] for key in delta.steps} | {key[:2] for key in delta.usages})
    payloads: list[str] = []
    payload: list[RunKey] = []
    size = 2
    for run in runs:
        added = len(json.dumps(run)) + 2
        if payload and size + added > _MAX_NOTIFICATION_BYTES:
            payloads.append(json.dumps(payload))
            payload, size = [], 2
        payload.append(run)
        size += added
    payloads.append(json.dumps(payload))
    await connection.execute(
        "SELECT pg_notify($1::text || '_' || current_schema(), payload) FROM unnest($2::text[]) AS payload",
        CHANNEL,
        payloads,
    )
