"""The store: the same tests on the one in memory and on Postgres, and some on Postgres only."""

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from periplus_cache.domain import (
    Attempt,
    AttemptDetails,
    Entry,
    EntryFilter,
    EntryPosition,
    EntrySelector,
    Hit,
    Invalidation,
    ObjectVersion,
    Producer,
    Recording,
    VersionedObject,
    WriteOutcome,
)
from periplus_cache.store import entries
from periplus_cache.store.candidates import CANDIDATES
from periplus_cache.store.postgres import PostgresStore
from periplus_common import postgres
from periplus_model.steps import (
    Artifact,
    CacheMode,
    CachePolicy,
    Inputs,
    ObjectRef,
    Outputs,
    StepPhase,
    Verdict,
)

NOON = datetime.fromisoformat("2026-11-22T12:00:00+00:00")
HOUR = timedelta(hours=1)
DEFAULT_POLICY = CachePolicy()
ANY_CHARACTERS = "a\0b\u2028 é 🚢 \"\\'"


def digest(number: int) -> str:
    return f"sha256:{number:064x}"


def recording(
    number=1, run="r1", *, step="", static=1, at=NOON, outputs=None, policy=DEFAULT_POLICY, entry=True, **more
):
    inputs = Inputs({"c": str(number)})
    step = step or f"s{number}"
    attempt = Attempt(
        project="p", run=run, step=step, template="t", phase=StepPhase.SUCCEEDED, verdict=Verdict.MISS, finished_at=at,
        cache_mode=policy.mode, fingerprint=digest(number), static_key=digest(1000 + static), inputs=inputs, **more,
    )  # fmt: skip
    new = Entry(
        project="p", fingerprint=digest(number), static_key=digest(1000 + static), template="t",
        producer=Producer(run, step, at, HOUR), inputs=inputs, outputs=outputs or Outputs({"y": "1"}), confirmed_at=at,
        expires_at=None if policy.ttl is None else at + policy.ttl,
    )  # fmt: skip
    return Recording(attempt, f'{{"t": {static}}}', 0, policy, entry=new if entry else None)


async def live(store, now=NOON, limits=None, fingerprints=()):
    by_static, exact = await store.candidates("p", limits or {}, set(fingerprints), now)
    return [c.fingerprint for c in by_static], [c.fingerprint for c in exact]


async def test_an_entry_is_returned_as_it_was_recorded(store):
    store, _ = store
    outputs = Outputs(
        {"y": ANY_CHARACTERS, "z": ""},
        (Artifact("m", ObjectRef("k é", "b", "e:1"), digest(7), "etag", 5),),
        ANY_CHARACTERS,
        0,
    )
    assert await store.record(recording(outputs=outputs)) == [WriteOutcome.ADDED]
    details = await store.entry("p", digest(1))
    assert details.entry.outputs == outputs
    assert details.entry.producer == Producer("r1", "s1", NOON, HOUR)
    assert (details.document, details.epoch, details.hits) == ('{"t": 1}', 0, 0)
    assert await store.entry("q", digest(1)) is None
    assert await store.entry("p", digest(2)) is None


async def test_candidates_are_the_newest_live_entries_up_to_the_limit_plus_one(store):
    store, _ = store
    for i in range(6):
        await store.record(recording(i, at=NOON + i * HOUR))
    await store.record(recording(9, static=2))
    now = NOON + 10 * HOUR
    assert await live(store, now, {digest(1001): 3, digest(1003): 5}) == (
        [digest(i) for i in (5, 4, 3, 2)],
        [],
    )
    assert await live(store, now, {digest(1002): 0}) == ([digest(9)], [])
    assert await live(store, now, {}, [digest(0), digest(77)]) == ([], [digest(0)])
    assert await store.candidates("q", {digest(1001): 3}, {digest(0)}, now) == ([], [])
    assert await live(store, now) == ([], [])


async def test_invalid_and_expired_entries_are_no_candidates(store):
    store, events = store
    await store.record(recording(1))
    await store.record(recording(2, policy=CachePolicy(ttl=HOUR)))
    invalidation = Invalidation(digest(1), "r1", "s1", "bytes are invalidation")
    await store.invalidate("q", [invalidation], NOON)
    for other in (
        replace(invalidation, producer_run="r2"),
        replace(invalidation, producer_step="s2"),
        replace(invalidation, fingerprint=digest(5)),
    ):
        await store.invalidate("p", [other], NOON)
    await store.invalidate("p", [invalidation, replace(invalidation, fingerprint=digest(5))], NOON + HOUR)
    await store.invalidate("p", [replace(invalidation, reason="again")], NOON + HOUR)
    assert await live(store, NOON, {digest(1001): 5}, [digest(1), digest(2)]) == ([digest(2)], [digest(2)])
    assert await live(store, NOON + HOUR, {digest(1001): 5}, [digest(1), digest(2)]) == ([], [])
    assert (await store.entry("p", digest(1))).entry.invalidation_reason == "bytes are invalidation"
    past = await store.last_invalidation("p", digest(1), NOON + HOUR)
    assert (past.producer_run, past.producer_step, past.reason) == ("r1", "s1", "bytes are invalidation")
    assert await store.last_invalidation("p", digest(1), NOON) is None
    assert await events() == ["EntryRecorded", "EntryRecorded", "EntryInvalidated"]


async def test_a_step_that_is_recorded_twice_is_stored_once(store):
    store, events = store
    artifact = Artifact("m", ObjectRef("k"), digest(7), "etag", 5)
    step = replace(recording(), outputs=(artifact,))
    assert await store.record(step) == [WriteOutcome.ADDED]
    assert await store.record(step) == [None]
    assert await events() == ["EntryRecorded", "ArtifactsDigested"]


async def test_recording_steps_together_is_the_same_as_one_by_one(store):
    store, events = store
    again = recording(1, "r2", at=NOON + HOUR, outputs=Outputs({"y": "2"}))
    later = recording(2, "r1", step="s1", at=NOON + HOUR)
    outcomes = await store.record(
        recording(1), recording(1), again, later, recording(3, static=2), recording(4, entry=False)
    )
    assert outcomes == [
        WriteOutcome.ADDED,
        None,
        WriteOutcome.DIVERGED,
        WriteOutcome.ADDED,
        WriteOutcome.ADDED,
        None,
    ]
    assert sorted(await events()) == ["EntryDiverged", *["EntryRecorded"] * 3]
    found = await store.attempt("p", "r1", "s1")
    assert (found.attempt, found.document) == (later.attempt, '{"t": 1}')
    assert (await store.entry("p", digest(3))).document == '{"t": 2}'
    assert (await store.attempt("p", "r1", "s4")).attempt.fingerprint == digest(4)
    assert await store.record() == []


async def test_concurrent_recordings_of_the_same_steps_do_not_deadlock(store):
    store, events = store
    steps = [recording(i, "r", static=i % 3) for i in range(60)]
    sequences = [steps, steps[::-1], steps[30:] + steps[:30], steps[::2] + steps[1::2]]
    outcomes = await asyncio.gather(*(store.record(*sequence) for sequence in sequences * 4))
    assert sum(outcome is WriteOutcome.ADDED for each in outcomes for outcome in each) == 60
    assert (await events()).count("EntryRecorded") == 60


async def test_the_events_continue_the_trace_in_which_the_step_finished(dsn):
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with postgres.database(dsn) as opened:
        step = replace(recording(), trace_headers={"traceparent": trace})
        await PostgresStore(opened).record(step, recording(2))
        async with opened.connection() as connection:
            rows = await connection.fetch("SELECT headers->>'traceparent' AS trace FROM outbox ORDER BY id")
    assert [row["trace"] and row["trace"][:35] for row in rows] == [trace[:35], None]


async def test_a_step_that_finished_again_later_replaces_its_attempt(store):
    store, _ = store
    await store.record(recording(1, "r1", step="s", entry=False))
    await store.record(recording(2, "r1", step="s", at=NOON + HOUR))
    found = await store.attempt("p", "r1", "s")
    assert found.attempt.fingerprint == digest(2)
    assert await store.record(recording(1, "r1", step="s", at=NOON - HOUR)) == [None]


@pytest.mark.parametrize(
    ("outputs", "policy", "outcome", "producer", "event"),
    [
        (Outputs({"y": "1"}), CachePolicy(), WriteOutcome.UNCHANGED, "r1", None),
        (Outputs({"y": "2"}), CachePolicy(), WriteOutcome.DIVERGED, "r1", "EntryDiverged"),
        (Outputs({"y": "2"}), CachePolicy(CacheMode.REFRESH), WriteOutcome.REPLACED, "r2", "EntryRecorded"),
        (Outputs({"y": "2"}), CachePolicy(ttl=HOUR), WriteOutcome.REPLACED, "r2", "EntryRecorded"),
        (Outputs({"y": "1"}, result="x"), CachePolicy(), WriteOutcome.REPLACED, "r2", "EntryRecorded"),
    ],
)
async def test_the_existing_entry_stays_or_is_replaced(store, outputs, policy, outcome, producer, event):
    store, events = store
    await store.record(recording(1, "r1"))
    new = recording(1, "r2", at=NOON + 2 * HOUR, outputs=outputs, policy=policy)
    assert await store.record(new) == [outcome]
    entry = (await store.entry("p", digest(1))).entry
    assert entry.producer.run == producer
    if outcome is WriteOutcome.REPLACED:
        assert entry == new.entry
        assert (await store.last_invalidation("p", digest(1), NOON + 3 * HOUR)).producer_run == "r1"
    if outcome is WriteOutcome.UNCHANGED:
        assert entry.confirmed_at == NOON + 2 * HOUR
    assert await events() == ["EntryRecorded", *([event] if event else [])]


async def test_an_invalid_entry_is_replaced_by_the_next_result(store):
    store, events = store
    await store.record(recording(1, "r1"))
    await store.invalidate("p", [Invalidation(digest(1), "r1", "s1", "bytes are invalidation")], NOON + HOUR)
    assert await store.record(recording(1, "r2", at=NOON + 2 * HOUR)) == [WriteOutcome.REPLACED]
    entry = (await store.entry("p", digest(1))).entry
    assert (entry.producer.run, entry.invalidation_reason) == ("r2", "")
    assert await events() == ["EntryRecorded", "EntryInvalidated", "EntryRecorded"]


async def test_entries_match_every_selector_and_counting_changes_nothing(store):
    store, events = store
    for i in range(4):
        await store.record(recording(i, run=f"r{i % 2}"))
    selector = EntrySelector(fingerprints=(digest(0), digest(1), digest(2)), producer_run="r0")
    assert await store.count_selected("p", selector) == 2
    assert await store.invalidate_selected("q", selector, "bad", NOON) == 0
    assert (await events()).count("EntryInvalidated") == 0
    assert await store.invalidate_selected("p", selector, "bad", NOON) == 2
    assert await store.invalidate_selected("p", selector, "bad", NOON) == 0
    assert await store.invalidate_selected("p", EntrySelector(template="t"), "bad", NOON) == 2
    assert (await events()).count("EntryInvalidated") == 4


async def test_many_entries_are_invalidated_in_batches(dsn):
    async with postgres.database(dsn) as opened:
        store = PostgresStore(opened)
        for count in (4, 5):
            await store.record(*(recording(100 * count + i, f"r{count}") for i in range(count)))
            selector = EntrySelector(producer_run=f"r{count}")
            assert (
                await entries.invalidate_selected(opened, "p", selector, "bad", NOON, batch_rows=2) == count
            )
        async with opened.connection() as connection:
            events = await connection.fetchval(
                "SELECT count(*) FROM outbox WHERE headers->>'ce-type' LIKE '%EntryInvalidated'"
            )
            invalidations = await connection.fetchval(
                "SELECT count(*) FROM invalidation WHERE reason = 'bad'"
            )
        assert (events, invalidations) == (9, 9)
        assert await store.list_entries("p", EntryFilter(), None, 99, NOON) == []


async def test_content_digests_belong_to_an_object_its_etag_and_its_size(store):
    store, _ = store
    found = VersionedObject(ObjectRef("k", "b", "e"), ObjectVersion("etag", 5))
    others = [
        replace(found, version=ObjectVersion("other", 5)), replace(found, version=ObjectVersion("etag", 6)),
        replace(found, object=ObjectRef("k", "b", "f")),
        replace(found, object=ObjectRef("k", "c", "e")), replace(found, object=ObjectRef("l", "b", "e")),
    ]  # fmt: skip
    await store.add_content_digests({found: digest(1)})
    await store.add_content_digests({found: digest(1), others[0]: digest(2)})
    assert await store.content_digests([*others, found]) == {found: digest(1), others[0]: digest(2)}
    assert await store.content_digests([]) == {}


async def test_hits_are_counted_once(store):
    store, _ = store
    await store.record(recording(1))
    base = recording(1, "r2", entry=False)
    attempt = replace(base.attempt, phase=StepPhase.CACHED, static_key="", inputs=None)
    hit = Hit("p", "r2", "s1", digest(1), HOUR, NOON)
    step = Recording(attempt, "", 0, CachePolicy(), hit=hit)
    for _ in range(2):
        await store.record(step)
    assert (await store.savings("p", "r2")).saved == HOUR
    assert (await store.savings("p", "")).hits == 1
    assert (await store.savings("p", "r1")).hits == 0
    assert (await store.entry("p", digest(1))).hits == 1
    found = await store.attempt("p", "r2", "s1")
    assert (found.attempt.phase, found.document, found.epoch) == (StepPhase.CACHED, "", 0)


async def test_an_attempt_is_returned_as_it_was_recorded(store):
    store, _ = store
    step = recording(
        1, uncacheable_reason="why", not_recorded_reason="why not", producer_run="r0", producer_step="s0"
    )
    await store.record(step)
    assert await store.attempt("p", "r1", "s1") == AttemptDetails(step.attempt, '{"t": 1}', 0)
    assert await store.attempt("p", "r1", "s2") is None
    assert await store.attempt("q", "r1", "s1") is None


async def test_comparable_entries_have_the_static_key_or_else_the_template_name(store):
    store, _ = store
    await store.record(recording(1, "r1", at=NOON))
    await store.record(recording(2, "r2", at=NOON + HOUR))
    await store.record(recording(3, "r3", static=2, at=NOON + HOUR))
    await store.record(recording(4, "r4", static=3, at=NOON + 2 * HOUR))
    attempt = recording(9, "r9", at=NOON + HOUR).attempt
    found = await store.comparable_entries(attempt)
    assert {(e.producer_run, e.document) for e in found} == {("r2", None), ("r1", None)}
    found = await store.comparable_entries(replace(attempt, static_key=digest(1009)))
    assert {(e.producer_run, e.document) for e in found} == {
        ("r1", '{"t": 1}'),
        ("r2", '{"t": 1}'),
        ("r3", '{"t": 2}'),
    }
    assert [
        e.producer_run for e in await store.comparable_entries(replace(attempt, run="r2", step="s2"))
    ] == ["r1"]
    assert await store.comparable_entries(replace(attempt, static_key=digest(1009), template="u")) == []


async def test_the_same_step_of_another_run_is_comparable_however_many_entries_there_are(store):
    store, _ = store
    for i in range(250):
        await store.record(recording(i, "r1", step=f"s({i})", at=NOON + timedelta(seconds=i)))
        if i < 5:
            await store.record(recording(1000 + i, "r2", step=f"s({i})", at=NOON + HOUR))
    attempt = recording(1002, "r2", step="s(2)", at=NOON + HOUR).attempt
    found = await store.comparable_entries(attempt)
    assert "s(2)" in {e.producer_step for e in found}
    assert {e.producer_run for e in found} == {"r1"}
    renamed = await store.comparable_entries(replace(attempt, static_key=digest(1009)))
    assert ("r1", "s(2)") in {(e.producer_run, e.producer_step) for e in renamed}


async def test_without_another_run_items_of_the_same_run_are_comparable(store):
    store, _ = store
    await store.record(recording(1, "r1", step="s(0)"))
    attempt = recording(2, "r1", step="s(1)", at=NOON + HOUR).attempt
    assert [e.producer_step for e in await store.comparable_entries(attempt)] == ["s(0)"]


async def test_the_previous_attempt_with_the_fingerprint_is_found(store):
    store, _ = store
    await store.record(recording(1, "r1", at=NOON, entry=False))
    later = recording(1, "r2", at=NOON + HOUR, entry=False)
    await store.record(later)
    assert (await store.previous_attempt(later.attempt)).run == "r1"
    assert await store.previous_attempt(recording(1, "r1", at=NOON).attempt) is None
    assert await store.previous_attempt(recording(2, "r3", at=NOON + 2 * HOUR).attempt) is None


async def test_of_many_concurrent_results_one_stays_and_the_others_diverge(store):
    store, events = store
    steps = [recording(1, f"r{i}", outputs=Outputs({"y": str(i)})) for i in range(40)]
    outcomes = await asyncio.gather(*(store.record(step) for step in steps))
    assert sorted(f.name for (f,) in outcomes) == ["ADDED"] + ["DIVERGED"] * 39
    kinds = await events()
    assert (kinds.count("EntryRecorded"), kinds.count("EntryDiverged")) == (1, 39)
    entry = (await store.entry("p", digest(1))).entry
    assert entry.outputs.parameters["y"] == entry.producer.run.removeprefix("r")


async def test_the_candidates_query_uses_an_index(dsn):
    async with postgres.database(dsn) as opened:
        async with opened.connection() as connection:
            await connection.execute(
                """
                INSERT INTO entry (fingerprint, project, static_key, template, producer_run, producer_step, inputs,
                                   outputs, recorded_at, confirmed_at, last_used_at, duration)
                SELECT sha256(i::text::bytea), 'p', sha256((i % 2)::text::bytea), 't', 'r', 's', '{}', '{}',
                       $1::timestamptz + i * interval '1 second', $1::timestamptz + i * interval '1 second', $1, interval '1 second'
                FROM generate_series(1, 20000) AS i
                """,
                NOON,
            )
            await connection.execute("ANALYZE entry")
            static = await connection.fetchval("SELECT sha256('1'::bytea)")
            plan = await connection.fetch(
                f"EXPLAIN (ANALYZE, BUFFERS) {CANDIDATES}", [static], [100], [static], NOON, "p", 16
            )
        text = "\n".join(row[0] for row in plan)
        assert "Seq Scan" not in text
        assert "Index Scan using entry_live" in text
        by_static, exact = await PostgresStore(opened).candidates(
            "p", {"sha256:" + static.hex(): 100}, [], NOON
        )
        assert (len(by_static), len(exact)) == (101, 0)


async def listed(store, chosen=EntryFilter(), *, after=None, limit=100, now=NOON + 9 * HOUR):  # noqa: B008 - frozen
    return [details.entry.fingerprint for details in await store.list_entries("p", chosen, after, limit, now)]


async def test_entries_are_listed_newest_first_and_by_template_and_run(store):
    store, _ = store
    for i in range(6):
        await store.record(recording(i, run=f"r{i % 2}", at=NOON + (i // 2) * HOUR))
    newest_first = [digest(i) for i in (5, 4, 3, 2, 1, 0)]
    assert await listed(store) == newest_first
    assert await listed(store, EntryFilter(producer_run="r1")) == [digest(5), digest(3), digest(1)]
    assert await listed(store, EntryFilter(template="t", producer_run="r0")) == [
        digest(4),
        digest(2),
        digest(0),
    ]
    assert await listed(store, EntryFilter(template="u")) == []
    assert await store.list_entries("q", EntryFilter(), None, 100, NOON) == []
    assert await listed(store, limit=2) == newest_first[:2]
    assert await listed(store, after=EntryPosition(NOON + HOUR, digest(3))) == newest_first[3:]
    assert await listed(store, after=EntryPosition(NOON, digest(0))) == []


async def test_invalid_and_expired_entries_are_listed_only_on_request(store):
    store, _ = store
    await store.record(recording(1), recording(2, policy=CachePolicy(ttl=HOUR)), recording(3))
    await store.invalidate("p", [Invalidation(digest(3), "r1", "s3", "bytes are gone")], NOON)
    assert await listed(store, now=NOON + HOUR) == [digest(1)]
    assert await listed(store, now=NOON) == [digest(2), digest(1)]
    every = EntryFilter(include_invalid=True)
    assert await listed(store, every, now=NOON + HOUR) == [digest(3), digest(2), digest(1)]
    reasons = [d.entry.invalidation_reason for d in await store.list_entries("p", every, None, 9, NOON)]
    assert reasons == ["bytes are gone", "", ""]


async def test_listed_entries_have_their_hits_and_no_key(store):
    store, _ = store
    await store.record(recording(1))
    hit = Hit("p", "r2", "s1", digest(1), HOUR, NOON)
    attempt = replace(recording(1, "r2").attempt, phase=StepPhase.CACHED)
    await store.record(Recording(attempt, "", 0, CachePolicy(), hit=hit))
    (details,) = await store.list_entries("p", EntryFilter(), None, 9, NOON)
    assert (details.entry.fingerprint, details.hits, details.document) == (digest(1), 1, "")


async def test_listing_entries_uses_an_index(dsn):
    async with postgres.database(dsn) as opened, opened.connection() as connection:
        await connection.execute(
            """
            INSERT INTO entry (fingerprint, project, static_key, template, producer_run, producer_step, inputs,
                               outputs, recorded_at, confirmed_at, last_used_at, duration)
            SELECT sha256(i::text::bytea), 'p', sha256('1'::bytea), 't', 'r', 's', '{}', '{}',
                   $1::timestamptz + i * interval '1 second', $1, $1, interval '1 second'
            FROM generate_series(1, 20000) AS i
            """,
            NOON,
        )
        await connection.execute("ANALYZE entry")
        rows = await connection.fetch(
            """
            EXPLAIN SELECT * FROM entry
            WHERE project = $1 AND invalidation_reason = '' AND (expires_at IS NULL OR expires_at > $2)
              AND (recorded_at, fingerprint) < ($3, $4)
            ORDER BY recorded_at DESC, fingerprint DESC LIMIT 51
            """,
            "p",
            NOON,
            NOON + 2 * HOUR,
            b"",
        )
    text = "\n".join(row[0] for row in rows)
    assert "entry_newest" in text
    assert "Sort" not in text
