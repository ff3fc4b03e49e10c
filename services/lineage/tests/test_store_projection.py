"""The store merges as deltas merge, also two batches at a time."""

import asyncio
from datetime import timedelta

from example_runs import all_events
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from run_events import START
from test_projection import delta_of

from periplus_common import postgres
from periplus_lineage.objects import object_hash
from periplus_lineage.projection import ProjectionDelta, RunUpdate, StepUpdate, UsageUpdate
from periplus_lineage.store.projection import ProjectionStore

TABLES = {
    "run": "project, id, created_at, pipeline, started, submitted_at, submitted_event, snapshot, finished_at, final_phase,"
    " finished_event, phase",
    "step": "project, run, path, template, plan_index, plan_node, started_at, finished_at, finished_event, final_phase,"
    " saved, template_digest, delay_at, delay_reason",
    "artifact_usage": "project, run, step, is_output, name, object_hash, object_uri, digest, size_bytes, cached",
    "step_dependency": "project, run, step, upstream_run, upstream_step, cached",
    "template": "project, digest, document",
    "snapshot": "project, id, event",
}
EVENTS = all_events()


async def rows(db: postgres.Database) -> dict[str, list[tuple]]:
    async with db.connection() as connection:
        return {
            table: [
                tuple(row) for row in await connection.fetch(f"SELECT {columns} FROM {table} AS t ORDER BY t")
            ]
            for table, columns in TABLES.items()
        }


async def truncate(db: postgres.Database) -> None:
    async with db.connection() as connection:
        await connection.execute(f"TRUNCATE {', '.join(TABLES)}")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.randoms(use_true_random=False), st.lists(st.sampled_from(EVENTS), max_size=30), st.integers(1, 12))
async def test_any_order_repetition_and_grouping_gives_the_same_rows(
    db: postgres.Database, random, repeated, batch_size
) -> None:
    await truncate(db)
    await ProjectionStore(db).apply(delta_of(*EVENTS))
    expected = await rows(db)
    await truncate(db)
    events = [*EVENTS, *repeated]
    random.shuffle(events)
    store = ProjectionStore(db)
    for start in range(0, len(events), 2 * batch_size):
        # Two concurrent transactions, as the consumer runs them.
        await asyncio.gather(
            store.apply(delta_of(*events[start : start + batch_size])),
            store.apply(delta_of(*events[start + batch_size : start + 2 * batch_size])),
        )
    assert await rows(db) == expected
    assert all(expected.values())


async def test_the_rows_are_those_of_the_delta(db: postgres.Database) -> None:
    delta = delta_of(*EVENTS)
    await ProjectionStore(db).apply(delta)
    stored = await rows(db)
    assert {row[:3]: row[3:] for row in stored["step"]} == {
        key: (
            s.template,
            s.plan_index,
            s.plan_node,
            s.started_at,
            *(s.finish or (None,) * 5),
            *(s.delay or (None,) * 2),
        )
        for key, s in delta.steps.items()
    }
    assert {row[:6]: row[6:] for row in stored["artifact_usage"]} == {
        key: tuple(usage) for key, usage in delta.usages.items()
    }
    assert {row[:2]: row[2] for row in stored["run"]} == {
        key: run.created_at for key, run in delta.runs.items()
    }
    assert set(stored["step_dependency"]) == delta.dependencies


async def test_the_longest_names_can_be_stored(db: postgres.Database) -> None:
    delta = ProjectionDelta()
    key = ("p" * 63, "r" * 256, "é" * 512)
    uri = "s3://b/" + "k" * 1024
    delta.add_step(key, StepUpdate("t" * 256))
    delta.add_usage((*key, True, "n" * 256, object_hash("p", uri)), UsageUpdate(uri))
    delta.dependencies.add((*key, "q" * 256, "è" * 512, True))
    delta.add_run(key[:2], RunUpdate(START, "l" * 256))
    await ProjectionStore(db).apply(delta)
    assert [len(stored) for stored in (await rows(db)).values()] == [1, 1, 1, 1, 0, 0]


async def test_repeated_events_write_no_row(db: postgres.Database) -> None:
    store = ProjectionStore(db)
    await store.apply(delta_of(*EVENTS))

    async def versions() -> list:
        async with db.connection() as connection:
            return [await connection.fetch(f"SELECT ctid FROM {table} ORDER BY ctid") for table in TABLES]

    before = await versions()
    await store.apply(delta_of(*EVENTS))
    assert await versions() == before


async def test_concurrent_batches_of_the_same_rows_do_not_deadlock(db: postgres.Database) -> None:
    def delta(paths: range, seconds: int) -> ProjectionDelta:
        steps = ProjectionDelta()
        for path in paths:
            update = StepUpdate("t", started_at=START - timedelta(seconds=seconds))
            steps.add_step(("p", "r", f"{path:05}"), update)
        return steps

    store = ProjectionStore(db)
    for turn in range(4):
        await asyncio.gather(
            store.apply(delta(range(3000), 2 * turn)), store.apply(delta(range(2999, -1, -1), 2 * turn + 1))
        )
    assert len((await rows(db))["step"]) == 3000
