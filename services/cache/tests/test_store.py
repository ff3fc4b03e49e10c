"""The record: the same tests on the one in memory and on Postgres, and what only Postgres can show."""

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from periplus_cache.attempt import Attempt, Hit
from periplus_cache.domain import Artifact, Inputs, Mode, Outputs, Phase, Place, Policy, Verdict
from periplus_cache.entry import Entry, Fate, Maker, Selector
from periplus_cache.ports import Burial, Recording, Seen
from periplus_cache.store.candidates import CANDIDATES
from periplus_cache.store.record import PostgresStore
from periplus_common import postgres

NOON = datetime.fromisoformat("2026-11-22T12:00:00+00:00")
HOUR = timedelta(hours=1)
FREE = Policy()
STRANGE = "a\0b\u2028 é 🚢 \"\\'"


def name(number: int) -> str:
    return f"sha256:{number:064x}"


def recording(
    number=1, run="r1", *, step="", static=1, at=NOON, outputs=None, policy=FREE, entry=True, **more
):
    inputs = Inputs((("c", str(number)),))
    step = step or f"s{number}"
    attempt = Attempt(
        "p", run, step, "t", Phase.SUCCEEDED, Verdict.MISS, at, policy.mode, name(number), name(1000 + static), inputs,
        **more,
    )  # fmt: skip
    made = Entry(
        "p", name(number), name(1000 + static), "t", Maker(run, step, at, HOUR), inputs,
        outputs or Outputs((("y", "1"),)), at, None if policy.ttl is None else at + policy.ttl,
    )  # fmt: skip
    return Recording(attempt, f'{{"t": {static}}}', 0, policy, entry=made if entry else None)


async def live(store, now=NOON, limits=None, fingerprints=()):
    by_static, exact = await store.candidates("p", limits or {}, set(fingerprints), now)
    return [c.fingerprint for c in by_static], [c.fingerprint for c in exact]


async def test_what_is_recorded_is_found_as_it_was(store):
    store, _ = store
    outputs = Outputs(
        (("y", STRANGE), ("z", "")),
        (Artifact("m", Place("k é", "b", "e:1"), name(7), "etag", 5),),
        STRANGE,
        0,
    )
    assert await store.record(recording(outputs=outputs)) == [Fate.ADDED]
    shown = await store.entry("p", name(1))
    assert shown.entry.outputs == outputs
    assert shown.entry.maker == Maker("r1", "s1", NOON, HOUR)
    assert (shown.document, shown.epoch, shown.hits) == ('{"t": 1}', 0, 0)
    assert await store.entry("q", name(1)) is None
    assert await store.entry("p", name(2)) is None


async def test_candidates_are_the_newest_live_entries_and_one_more(store):
    store, _ = store
    for i in range(6):
        await store.record(recording(i, at=NOON + i * HOUR))
    await store.record(recording(9, static=2))
    now = NOON + 10 * HOUR
    assert await live(store, now, {name(1001): 3, name(1003): 5}) == ([name(i) for i in (5, 4, 3, 2)], [])
    assert await live(store, now, {name(1002): 0}) == ([name(9)], [])
    assert await live(store, now, {}, [name(0), name(77)]) == ([], [name(0)])
    assert await store.candidates("q", {name(1001): 3}, {name(0)}, now) == ([], [])
    assert await live(store, now) == ([], [])


async def test_buried_and_expired_entries_are_no_candidates(store):
    store, told = store
    await store.record(recording(1))
    await store.record(recording(2, policy=Policy(ttl=HOUR)))
    gone = Burial(name(1), "r1", "s1", "bytes are gone")
    await store.bury("q", [gone], NOON)
    for other in (replace(gone, run="r2"), replace(gone, step="s2"), replace(gone, fingerprint=name(5))):
        await store.bury("p", [other], NOON)
    await store.bury("p", [gone, replace(gone, fingerprint=name(5))], NOON + HOUR)
    await store.bury("p", [replace(gone, reason="again")], NOON + HOUR)
    assert await live(store, NOON, {name(1001): 5}, [name(1), name(2)]) == ([name(2)], [name(2)])
    assert await live(store, NOON + HOUR, {name(1001): 5}, [name(1), name(2)]) == ([], [])
    assert (await store.entry("p", name(1))).entry.buried == "bytes are gone"
    tomb = await store.tombstone("p", name(1), NOON + HOUR)
    assert (tomb.run, tomb.step, tomb.reason) == ("r1", "s1", "bytes are gone")
    assert await store.tombstone("p", name(1), NOON) is None
    assert await told() == ["EntryRecorded", "EntryRecorded", "EntryInvalidated"]


async def test_a_message_that_comes_twice_is_stored_once(store):
    store, told = store
    artifact = Artifact("m", Place("k"), name(7), "etag", 5)
    step = replace(recording(), outputs=(artifact,))
    assert await store.record(step) == [Fate.ADDED]
    assert await store.record(step) == [None]
    assert await told() == ["EntryRecorded", "ArtifactsDigested"]


async def test_what_comes_together_is_stored_as_if_it_had_come_alone(store):
    store, told = store
    again = recording(1, "r2", at=NOON + HOUR, outputs=Outputs((("y", "2"),)))
    later = recording(2, "r1", step="s1", at=NOON + HOUR)
    fates = await store.record(
        recording(1), recording(1), again, later, recording(3, static=2), recording(4, entry=False)
    )
    assert fates == [Fate.ADDED, None, Fate.DIVERGED, Fate.ADDED, Fate.ADDED, None]
    assert sorted(await told()) == ["EntryDiverged", *["EntryRecorded"] * 3]
    attempt, document, _ = await store.attempt("p", "r1", "s1")
    assert (attempt, document) == (later.attempt, '{"t": 1}')
    assert (await store.entry("p", name(3))).document == '{"t": 2}'
    assert (await store.attempt("p", "r1", "s4"))[0].fingerprint == name(4)
    assert await store.record() == []


async def test_many_who_record_the_same_at_once_wait_for_each_other_and_never_in_a_ring(store):
    store, told = store
    steps = [recording(i, "r", static=i % 3) for i in range(60)]
    orders = [steps, steps[::-1], steps[30:] + steps[:30], steps[::2] + steps[1::2]]
    fates = await asyncio.gather(*(store.record(*order) for order in orders * 4))
    assert sum(fate is Fate.ADDED for each in fates for fate in each) == 60
    assert (await told()).count("EntryRecorded") == 60


async def test_the_trace_in_which_a_step_ended_goes_on_in_what_is_told(dsn):
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with postgres.database(dsn) as opened:
        step = replace(recording(), trace={"traceparent": trace})
        await PostgresStore(opened).record(step, recording(2))
        async with opened.connection() as connection:
            rows = await connection.fetch("SELECT headers->>'traceparent' AS trace FROM outbox ORDER BY id")
    assert [row["trace"] and row["trace"][:35] for row in rows] == [trace[:35], None]


async def test_a_step_that_ended_again_later_is_stored_anew(store):
    store, _ = store
    await store.record(recording(1, "r1", step="s", entry=False))
    await store.record(recording(2, "r1", step="s", at=NOON + HOUR))
    attempt, _, _ = await store.attempt("p", "r1", "s")
    assert attempt.fingerprint == name(2)
    assert await store.record(recording(1, "r1", step="s", at=NOON - HOUR)) == [None]


@pytest.mark.parametrize(
    ("outputs", "policy", "fate", "kept", "event"),
    [
        (Outputs((("y", "1"),)), Policy(), Fate.KEPT, "r1", None),
        (Outputs((("y", "2"),)), Policy(), Fate.DIVERGED, "r1", "EntryDiverged"),
        (Outputs((("y", "2"),)), Policy(Mode.REFRESH), Fate.REPLACED, "r2", "EntryRecorded"),
        (Outputs((("y", "2"),)), Policy(ttl=HOUR), Fate.REPLACED, "r2", "EntryRecorded"),
        (Outputs((("y", "1"),), result="x"), Policy(), Fate.REPLACED, "r2", "EntryRecorded"),
    ],
)
async def test_what_becomes_of_the_entry_that_is_there(store, outputs, policy, fate, kept, event):
    store, told = store
    await store.record(recording(1, "r1"))
    came = recording(1, "r2", at=NOON + 2 * HOUR, outputs=outputs, policy=policy)
    assert await store.record(came) == [fate]
    entry = (await store.entry("p", name(1))).entry
    assert entry.maker.run == kept
    if fate is Fate.REPLACED:
        assert entry == came.entry
        assert (await store.tombstone("p", name(1), NOON + 3 * HOUR)).run == "r1"
    if fate is Fate.KEPT:
        assert entry.confirmed_at == NOON + 2 * HOUR
    assert await told() == ["EntryRecorded", *([event] if event else [])]


async def test_a_buried_entry_gives_way_to_the_next_success(store):
    store, told = store
    await store.record(recording(1, "r1"))
    await store.bury("p", [Burial(name(1), "r1", "s1", "bytes are gone")], NOON + HOUR)
    assert await store.record(recording(1, "r2", at=NOON + 2 * HOUR)) == [Fate.REPLACED]
    entry = (await store.entry("p", name(1))).entry
    assert (entry.maker.run, entry.buried) == ("r2", "")
    assert await told() == ["EntryRecorded", "EntryInvalidated", "EntryRecorded"]


async def test_selectors_choose_together_and_counting_changes_nothing(store):
    store, told = store
    for i in range(4):
        await store.record(recording(i, run=f"r{i % 2}"))
    choose = Selector(fingerprints=(name(0), name(1), name(2)), run="r0")
    assert await store.invalidate("p", choose, "bad", NOON, only_count=True) == 2
    assert await store.invalidate("q", choose, "bad", NOON, only_count=False) == 0
    assert (await told()).count("EntryInvalidated") == 0
    assert await store.invalidate("p", choose, "bad", NOON, only_count=False) == 2
    assert await store.invalidate("p", choose, "bad", NOON, only_count=False) == 0
    assert await store.invalidate("p", Selector(template="t"), "bad", NOON, only_count=False) == 2
    assert (await told()).count("EntryInvalidated") == 4


async def test_digests_are_remembered_by_place_etag_and_size(store):
    store, _ = store
    seen = Seen(Place("k", "b", "e"), "etag", 5)
    others = [
        replace(seen, etag="other"), replace(seen, size=6), replace(seen, place=Place("k", "b", "f")),
        replace(seen, place=Place("k", "c", "e")), replace(seen, place=Place("l", "b", "e")),
    ]  # fmt: skip
    await store.remember({seen: name(1)})
    await store.remember({seen: name(1), others[0]: name(2)})
    assert await store.digests([*others, seen]) == {seen: name(1), others[0]: name(2)}
    assert await store.digests([]) == {}


async def test_hits_are_counted_once(store):
    store, _ = store
    await store.record(recording(1))
    base = recording(1, "r2", entry=False)
    attempt = replace(base.attempt, phase=Phase.CACHED, static_key="", inputs=None)
    hit = Hit("p", "r2", "s1", name(1), HOUR, NOON)
    step = Recording(attempt, "", 0, Policy(), hit=hit)
    for _ in range(2):
        await store.record(step)
    assert (await store.savings("p", "r2")).saved == HOUR
    assert (await store.savings("p", "")).hits == 1
    assert (await store.savings("p", "r1")).hits == 0
    assert (await store.entry("p", name(1))).hits == 1
    found, document, epoch = await store.attempt("p", "r2", "s1")
    assert (found.phase, document, epoch) == (Phase.CACHED, "", 0)


async def test_an_attempt_is_kept_as_it_was(store):
    store, _ = store
    step = recording(1, reason="why", unkept="why not", producer_run="r0", producer_step="s0")
    await store.record(step)
    assert await store.attempt("p", "r1", "s1") == (step.attempt, '{"t": 1}', 0)
    assert await store.attempt("p", "r1", "s2") is None
    assert await store.attempt("q", "r1", "s1") is None


async def test_earlier_entries_are_of_the_static_key_else_of_the_name(store):
    store, _ = store
    await store.record(recording(1, "r1", at=NOON))
    await store.record(recording(2, "r2", at=NOON + HOUR))
    await store.record(recording(3, "r3", static=2, at=NOON + HOUR))
    await store.record(recording(4, "r4", static=3, at=NOON + 2 * HOUR))
    asks = recording(9, "r9", at=NOON + HOUR).attempt
    found = await store.earlier(asks)
    assert {(e.run, e.document) for e in found} == {("r2", None), ("r1", None)}
    found = await store.earlier(replace(asks, static_key=name(1009)))
    assert {(e.run, e.document) for e in found} == {
        ("r1", '{"t": 1}'),
        ("r2", '{"t": 1}'),
        ("r3", '{"t": 2}'),
    }
    assert [e.run for e in await store.earlier(replace(asks, run="r2", step="s2"))] == ["r1"]
    assert await store.earlier(replace(asks, static_key=name(1009), template="u")) == []


async def test_the_same_step_of_another_run_is_among_the_earlier_however_many_there_are(store):
    store, _ = store
    for i in range(250):
        await store.record(recording(i, "r1", step=f"s({i})", at=NOON + timedelta(seconds=i)))
        if i < 5:
            await store.record(recording(1000 + i, "r2", step=f"s({i})", at=NOON + HOUR))
    asks = recording(1002, "r2", step="s(2)", at=NOON + HOUR).attempt
    found = await store.earlier(asks)
    assert "s(2)" in {e.step for e in found}
    assert {e.run for e in found} == {"r1"}
    renamed = await store.earlier(replace(asks, static_key=name(1009)))
    assert ("r1", "s(2)") in {(e.run, e.step) for e in renamed}


async def test_without_another_run_its_own_neighbours_are_earlier(store):
    store, _ = store
    await store.record(recording(1, "r1", step="s(0)"))
    asks = recording(2, "r1", step="s(1)", at=NOON + HOUR).attempt
    assert [e.step for e in await store.earlier(asks)] == ["s(0)"]


async def test_the_same_attempt_before_is_found(store):
    store, _ = store
    await store.record(recording(1, "r1", at=NOON, entry=False))
    later = recording(1, "r2", at=NOON + HOUR, entry=False)
    await store.record(later)
    assert (await store.same(later.attempt)).run == "r1"
    assert await store.same(recording(1, "r1", at=NOON).attempt) is None
    assert await store.same(recording(2, "r3", at=NOON + 2 * HOUR).attempt) is None


async def test_of_many_results_at_once_one_stays_and_the_others_are_told(store):
    store, told = store
    steps = [recording(1, f"r{i}", outputs=Outputs((("y", str(i)),))) for i in range(40)]
    fates = await asyncio.gather(*(store.record(step) for step in steps))
    assert sorted(f.name for (f,) in fates) == ["ADDED"] + ["DIVERGED"] * 39
    kinds = await told()
    assert (kinds.count("EntryRecorded"), kinds.count("EntryDiverged")) == (1, 39)
    entry = (await store.entry("p", name(1))).entry
    assert entry.outputs.parameter("y") == entry.maker.run.removeprefix("r")


async def test_the_hot_query_reads_by_index_and_not_the_whole_table(dsn):
    async with postgres.database(dsn) as opened:
        async with opened.connection() as connection:
            await connection.execute(
                """
                INSERT INTO entry (fingerprint, project, static_key, template, run, step, inputs, outputs,
                                   recorded_at, confirmed_at, took_us)
                SELECT sha256(i::text::bytea), 'p', sha256((i % 2)::text::bytea), 't', 'r', 's', '{}', '{}',
                       $1::timestamptz + i * interval '1 second', $1::timestamptz + i * interval '1 second', 1
                FROM generate_series(1, 20000) AS i
                """,
                NOON,
            )
            await connection.execute("ANALYZE entry")
            static = await connection.fetchval("SELECT sha256('1'::bytea)")
            plan = await connection.fetch(
                f"EXPLAIN (ANALYZE, BUFFERS) {CANDIDATES}", [static], [100], [static], NOON, "p"
            )
        text = "\n".join(row[0] for row in plan)
        assert "Seq Scan" not in text
        assert "Index Scan using entry_live" in text
        by_static, exact = await PostgresStore(opened).candidates(
            "p", {"sha256:" + static.hex(): 100}, [], NOON
        )
        assert (len(by_static), len(exact)) == (101, 0)
