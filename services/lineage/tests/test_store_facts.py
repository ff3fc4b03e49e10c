"""The store joins as the facts do, whatever comes in whichever batch, two batches at a time."""

import asyncio
from datetime import timedelta

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scenario import everything
from test_fact import read

from periplus_common import postgres
from periplus_lineage.domain.fact import Facts
from periplus_lineage.store.facts import FactStore

TABLES = {
    "run": "project, id, at, pipeline, begun, submitted_at, submitted, finished_at, outcome, finished, phase",
    "step": "project, run, path, template, ordinal, planned, started_at, finished_at, phase, saved, finished",
    "flow": "project, run, path, made, name, place, object, digest, size, cached",
    "link": "project, run, path, from_run, from_path, cached",
    "template": "project, digest, document",
    "snapshot": "project, id, body",
}
EVENTS = everything()


async def rows(db: postgres.Database) -> dict[str, list[tuple]]:
    async with db.connection() as connection:
        return {
            table: [tuple(row) for row in await connection.fetch(f"SELECT {columns} FROM {table} ORDER BY 1, 2, 3, 4")]
            if table in ("run", "step", "flow", "link")
            else [tuple(row) for row in await connection.fetch(f"SELECT {columns} FROM {table} ORDER BY 1, 2")]
            for table, columns in TABLES.items()
        }  # fmt: skip


async def emptied(db: postgres.Database) -> None:
    async with db.connection() as connection:
        await connection.execute(f"TRUNCATE {', '.join(TABLES)}")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.randoms(use_true_random=False), st.lists(st.sampled_from(EVENTS), max_size=30), st.integers(1, 12))
async def test_any_order_repetition_and_grouping_gives_the_same_rows(
    db: postgres.Database, random, again, batch
) -> None:
    await emptied(db)
    await FactStore(db).add(read(*EVENTS))
    expected = await rows(db)
    await emptied(db)
    events = [*EVENTS, *again]
    random.shuffle(events)
    store = FactStore(db)
    for start in range(0, len(events), 2 * batch):
        # Two transactions at once, as the consumer has them.
        await asyncio.gather(
            store.add(read(*events[start : start + batch])),
            store.add(read(*events[start + batch : start + 2 * batch])),
        )
    assert await rows(db) == expected
    assert all(expected.values())


async def test_the_rows_say_what_the_facts_say(db: postgres.Database) -> None:
    facts = read(*EVENTS)
    await FactStore(db).add(facts)
    stored = await rows(db)
    steps = {row[:3]: row[3:] for row in stored["step"]}
    assert steps == {
        key: (f.template, f.ordinal, f.planned, f.started_at, *reordered(f.end))
        for key, f in facts.steps.items()
    }
    assert {row[:6]: row[6:] for row in stored["flow"]} == {key: tuple(f) for key, f in facts.flows.items()}
    assert {row[:2]: row[2] for row in stored["run"]} == {key: f.at for key, f in facts.runs.items()}


def reordered(end) -> tuple:
    return (end.at, end.phase, end.saved, end.body) if end else (None,) * 4


async def test_the_longest_names_can_be_kept(db: postgres.Database) -> None:
    facts = Facts()
    long = ("p" * 63, "r" * 256, "é" * 512)
    from story import START

    from periplus_lineage.domain.fact import FlowFact, RunFact, StepFact
    from periplus_lineage.domain.graph import place

    facts.step(long, StepFact("t" * 256))
    facts.flow((*long, True, "n" * 256, place("p", "k")), FlowFact("s3://b/" + "k" * 1024))
    facts.links.add((*long, "q" * 256, "è" * 512, True))
    facts.run(long[:2], RunFact(START, "l" * 256))
    await FactStore(db).add(facts)
    assert [len(stored) for stored in (await rows(db)).values()] == [1, 1, 1, 1, 0, 0]


async def test_duplicates_write_nothing(db: postgres.Database) -> None:
    store = FactStore(db)
    await store.add(read(*EVENTS))

    async def versions() -> list:
        async with db.connection() as connection:
            return [
                await connection.fetch(f"SELECT ctid FROM {table} ORDER BY ctid") for table in TABLES
            ]  # fmt: skip

    before = await versions()
    await store.add(read(*EVENTS))
    assert await versions() == before


async def test_batches_that_meet_from_both_ends_wait_and_never_block_each_other(
    db: postgres.Database,
) -> None:
    from story import START

    from periplus_lineage.domain.fact import StepFact

    def facts(paths: range, seconds: int) -> Facts:
        told = Facts()
        for path in paths:
            told.step(("p", "r", f"{path:05}"), StepFact("t", started_at=START - timedelta(seconds=seconds)))
        return told

    store = FactStore(db)
    for turn in range(4):
        await asyncio.gather(
            store.add(facts(range(3000), 2 * turn)), store.add(facts(range(2999, -1, -1), 2 * turn + 1))
        )
    assert len((await rows(db))["step"]) == 3000
