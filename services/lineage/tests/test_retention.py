"""Retention: what is deleted, and that nothing upstream of a run that stays is."""

from datetime import UTC, datetime, timedelta

import pytest
from example_runs import all_events, first, second, snapshots
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from run_events import PROJECT, RunEvents, artifact
from test_projection import delta_of
from test_store_projection import TABLES, rows, truncate
from test_traversal import queries

from periplus_common import postgres
from periplus_common.errors import NotFound
from periplus_common.retention import delete_expired
from periplus_lineage.objects import object_hash, object_uri
from periplus_lineage.projection import Finish, ProjectionDelta, RunUpdate, StepUpdate, UsageUpdate
from periplus_lineage.store.projection import ProjectionStore
from periplus_lineage.store.retention import retentions
from periplus_lineage.store.runs import PostgresRuns
from periplus_model.steps import ObjectRef

KEEP = timedelta(days=30)
NOW = datetime.now(UTC)
OLD, RECENT = NOW - timedelta(days=31), NOW - timedelta(days=29)


async def finish(db: postgres.Database, run: str, at: datetime) -> None:
    """Have the run finished, and created, at that time."""
    async with db.connection() as connection:
        await connection.execute(
            "UPDATE run SET finished_at = $2, created_at = $2, submitted_at = $2 WHERE id = $1", run, at
        )


async def run_ids(db: postgres.Database) -> set[str]:
    async with db.connection() as connection:
        return {row["id"] for row in await connection.fetch("SELECT id FROM run")}


async def delete(dsn: str, keep_snapshots: timedelta | None = None) -> dict[str, int]:
    return await delete_expired(dsn, retentions(KEEP, keep_snapshots), batch_rows=2)


async def test_an_old_run_is_deleted_with_all_its_rows_and_open_and_recent_ones_stay(
    dsn: str, db: postgres.Database
) -> None:
    store = ProjectionStore(db)
    recent = delta_of(*RunEvents("recent").chain("a", "b").events)
    await store.apply(recent)
    await finish(db, "recent", RECENT)
    is_open = delta_of(*RunEvents("open").chain("a", "b").events[:-1])
    await store.apply(is_open)
    before = await rows(db)
    await store.apply(delta_of(*RunEvents("old").chain("a", "b").events))
    await finish(db, "old", OLD)
    assert (await delete(dsn))["run"] == 1
    assert await rows(db) == before
    assert await run_ids(db) == {"recent", "open"}


async def test_more_old_runs_than_a_batch_are_deleted(dsn: str, db: postgres.Database) -> None:
    for number in range(5):
        await ProjectionStore(db).apply(delta_of(*RunEvents(f"r{number}").chain("a").events))
        await finish(db, f"r{number}", OLD)
    assert (await delete(dsn))["run"] == 5
    assert not await run_ids(db)


async def test_the_producer_of_a_cached_step_stays_as_long_as_the_run_that_was_served(
    dsn: str, db: postgres.Database
) -> None:
    await ProjectionStore(db).apply(delta_of(*first().events, *second().events))
    await finish(db, "r1", OLD)
    await finish(db, "r2", RECENT)
    before = await queries(db).traverse(PROJECT, ["run:r2"], upstream=True)
    assert "step:r1/features" in {node.id for node in before.nodes}
    assert (await delete(dsn))["run"] == 0
    assert await queries(db).traverse(PROJECT, ["run:r2"], upstream=True) == before
    await finish(db, "r2", OLD)
    assert (await delete(dsn))["run"] == 2
    with pytest.raises(NotFound):
        await queries(db).traverse(PROJECT, ["run:r2"], upstream=True)


async def test_a_run_stays_if_it_is_used_through_another_old_run(dsn: str, db: postgres.Database) -> None:
    table, model = artifact("table", "a/table", "table"), artifact("model", "b/model", "model")
    for run, inputs, outputs in (("a", (), (table,)), ("b", (table,), (model,)), ("c", (model,), ())):
        events = RunEvents(run).step("s", inputs=inputs, outputs=outputs).events
        await ProjectionStore(db).apply(delta_of(*events))
        await finish(db, run, RECENT if run == "c" else OLD)
    assert (await delete(dsn))["run"] == 0
    await finish(db, "c", OLD)
    assert (await delete(dsn))["run"] == 3


async def test_the_writer_of_the_same_bytes_stays_for_the_reader_of_a_copy(
    dsn: str, db: postgres.Database
) -> None:
    original, copy = artifact("out", "a/model", "model"), artifact("in", "serving/model", "model")
    await ProjectionStore(db).apply(delta_of(*RunEvents("a").step("make", outputs=(original,)).events))
    await ProjectionStore(db).apply(delta_of(*RunEvents("b").step("serve", inputs=(copy,)).events))
    await finish(db, "a", OLD)
    await finish(db, "b", RECENT)
    assert (await delete(dsn))["run"] == 0


async def test_old_runs_that_use_each_other_are_deleted(dsn: str, db: postgres.Database) -> None:
    latest = artifact("model", "models/latest")  # its digest is not known
    for run in "abc":
        events = RunEvents(run).step("train", inputs=(latest,), outputs=(latest,)).events
        await ProjectionStore(db).apply(delta_of(*events))
        await finish(db, run, OLD)
    assert (await delete(dsn))["run"] == 3


async def test_templates_stay_while_a_step_has_them_or_they_were_used_lately(
    dsn: str, db: postgres.Database
) -> None:
    store = ProjectionStore(db)

    async def documents() -> set[str]:
        async with db.connection() as connection:
            found = await connection.fetch("SELECT document FROM template")
        return {row["document"] for row in found}

    old = RunEvents("old").step("a", document='{"a": 1}').events
    await store.apply(delta_of(*old[:-1]))
    await store.apply(delta_of(*RunEvents("open").step("a", document='{"b": 2}').events[:-1]))
    await store.apply(delta_of(*RunEvents("new").step("a", document='{"c": 3}').events))
    async with db.connection() as connection:
        await connection.execute(
            "UPDATE template SET used_at = $1 WHERE document <> '{\"c\": 3}'", OLD - timedelta(days=1)
        )
    await finish(db, "new", OLD)
    assert await delete(dsn) == {"run": 1, "template": 0}  # the run "old" is still open
    await store.apply(delta_of(old[-1]))
    assert await delete(dsn) == {"run": 1, "template": 1}
    assert await documents() == {'{"b": 2}', '{"c": 3}'}


async def test_a_template_that_is_used_again_gets_a_new_time_once_it_is_not_remembered_any_more(
    db: postgres.Database,
) -> None:
    events = RunEvents("r").step("a").events

    async def is_old() -> bool:
        async with db.connection() as connection:
            return await connection.fetchval("SELECT used_at < now() - interval '1 day' FROM template")

    async with db.connection() as connection:
        remembering = ProjectionStore(db)
        forgetting = ProjectionStore(db, remember_templates=timedelta(0))
        for store in (remembering, forgetting):
            await store.apply(delta_of(*events))
        await connection.execute("UPDATE template SET used_at = $1", OLD)
    await remembering.apply(delta_of(*events))
    assert await is_old()
    await forgetting.apply(delta_of(*events))
    assert not await is_old()


async def test_snapshots_stay_while_a_run_has_them_and_by_default_for_ever(
    dsn: str, db: postgres.Database
) -> None:
    await ProjectionStore(db).apply(delta_of(*snapshots(), *first().events))  # r1 has the first of the two
    await finish(db, "r1", RECENT)
    async with db.connection() as connection:
        await connection.execute("UPDATE snapshot SET received_at = $1", OLD)
    assert "snapshot" not in await delete(dsn)
    assert (await delete(dsn, keep_snapshots=KEEP))["snapshot"] == 1
    found = await PostgresRuns(db).snapshots(PROJECT, {f"sha256:{str(i) * 64}" for i in (1, 2)})
    assert list(found) == ["sha256:" + "1" * 64]


async def test_everything_is_deleted_once_everything_is_old(dsn: str, db: postgres.Database) -> None:
    await ProjectionStore(db).apply(delta_of(*all_events()))
    async with db.connection() as connection:
        await connection.execute("UPDATE run SET finished_at = $1, created_at = $1, submitted_at = $1", OLD)
        await connection.execute("UPDATE template SET used_at = $1", OLD - timedelta(days=1))
        await connection.execute("UPDATE snapshot SET received_at = $1", OLD)
    await delete(dsn, keep_snapshots=KEEP)
    assert set(await rows(db)) == set(TABLES)
    assert not any((await rows(db)).values())


RUNS = "abcd"
STEPS = [(run, path) for run in RUNS for path in ("x", "y")]
KEYS = ["k1", "k2", "k3"]
DIGESTS = [None, b"\1" * 32, b"\2" * 32]

random_usages = st.lists(
    st.tuples(
        st.sampled_from(STEPS), st.booleans(), st.sampled_from(KEYS), st.sampled_from(DIGESTS), st.booleans()
    ),
    max_size=12,
)
random_dependencies = st.sets(st.tuples(st.sampled_from(STEPS), st.sampled_from(STEPS)), max_size=4)
random_ages = st.tuples(*[st.sampled_from([OLD, OLD, RECENT, None])] * len(RUNS))


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(random_usages, random_dependencies, random_ages)
async def test_what_is_upstream_of_a_run_that_stays_does_not_change(
    dsn: str, db: postgres.Database, usages, dependencies, ages
) -> None:
    delta = ProjectionDelta()
    for run, finished_at in zip(RUNS, ages, strict=True):
        end = Finish(finished_at, b"", 3, timedelta()) if finished_at else None
        delta.add_run((PROJECT, run), RunUpdate(finished_at or OLD, finish=end))
    for step in STEPS:
        delta.add_step((PROJECT, *step), StepUpdate("t"))
    for (run, path), is_output, key, digest, cached in usages:
        uri = object_uri(ObjectRef(key, "artifacts"))
        usage_key = (PROJECT, run, path, is_output, key, object_hash(PROJECT, uri))
        delta.add_usage(usage_key, UsageUpdate(uri, digest, cached=cached and is_output))
    delta.dependencies = {(PROJECT, *a, *b, True) for a, b in dependencies if a[0] != b[0]}
    await truncate(db)
    await ProjectionStore(db).apply(delta)

    async def graph() -> list[tuple[dict[str, int], tuple]]:
        pages = [
            await queries(db).traverse(PROJECT, [f"run:{run}"], upstream=True)
            for run, finished_at in zip(RUNS, ages, strict=True)
            if finished_at != OLD
        ]
        return [({node.id: node.depth for node in page.nodes}, page.edges) for page in pages]

    before = await graph()
    await delete(dsn)
    assert await graph() == before
    assert {run for run, at in zip(RUNS, ages, strict=True) if at != OLD} <= await run_ids(db)
    if all(at == OLD for at in ages):
        assert not await run_ids(db)
