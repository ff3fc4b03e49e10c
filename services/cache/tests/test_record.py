"""Recording finished steps, through fakes: what becomes an entry, what does not, and why."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from periplus.cache.v1 import events_pb2 as out
from periplus_cache.domain import Mode, Phase, Policy, Verdict
from periplus_cache.plan import Literal, Object, Plan, StepQuery
from periplus_cache.ports import Burial
from periplus_common.errors import Invalid, Unavailable


def told(memory, kind: str):
    """The events of a kind that were told."""
    message = getattr(out, kind)
    name = message.DESCRIPTOR.full_name
    return [message.FromString(e.body) for e in memory.events if e.headers["ce-type"] == name]


async def test_a_success_becomes_an_entry_and_is_told(cache, memory, train, objects):
    data, model = objects.put("data", b"data"), objects.put("model", b"model")
    await cache.record(train(given={"data": data}, made={"model": model}))
    (entry,) = memory.entries.values()
    assert entry.outputs.artifact("model").digest.startswith("sha256:")
    assert entry.maker.took == timedelta(seconds=60)
    (recorded,) = told(memory, "EntryRecorded")
    assert (recorded.fingerprint, recorded.producer_run, recorded.producer_step) == (
        entry.fingerprint,
        "r1",
        "main.train",
    )
    (digested,) = told(memory, "ArtifactsDigested")
    assert [(a.name, a.size_bytes) for a in (*digested.inputs, *digested.outputs)] == [
        ("data", 4),
        ("model", 5),
    ]
    assert all(a.digest for a in (*digested.inputs, *digested.outputs))


async def test_hearing_it_again_changes_nothing(cache, memory, train, objects):
    step = train(made={"model": objects.put("model")})
    await cache.record(step)
    before = (dict(memory.entries), len(memory.events))
    for _ in range(3):
        await cache.record(step)
    assert (memory.entries, len(memory.events)) == before


async def test_an_old_message_does_not_bring_a_buried_entry_back(cache, memory, train):
    step = train()
    await cache.record(step)
    (fingerprint,) = memory.entries
    await memory.bury("p", [Burial(fingerprint, "r1", "main.train", "bad data")], step.finished_at)
    await cache.record(step)
    assert memory.entries[fingerprint].buried == "bad data"


@pytest.mark.parametrize(
    "changed",
    [
        {"policy": Policy(Mode.OFF)},
        {"policy": Policy(Mode.READ)},
        {"policy": Policy(side_effects=True)},
        {"uncacheable": "it mounts a volume"},
        {"override": Mode.OFF},
        {"phase": Phase.FAILED},
        {"phase": Phase.ERROR},
    ],
    ids=str,
)
async def test_what_is_not_to_be_cached_leaves_digests_and_no_entry(cache, memory, train, objects, changed):
    await cache.record(train(made={"model": objects.put("model")}, **changed))
    assert memory.entries == {}
    assert len(told(memory, "ArtifactsDigested")) == 1
    assert len(memory.attempts) == 1


@pytest.mark.parametrize(
    ("own", "run", "recorded"),
    [
        (Mode.OFF, Mode.REFRESH, False),
        (Mode.READ, Mode.REFRESH, False),
        (Mode.WRITE, Mode.REFRESH, True),
        (Mode.READWRITE, Mode.REFRESH, True),
        (Mode.REFRESH, Mode.OFF, False),
        (Mode.READWRITE, None, True),
    ],
)
async def test_a_run_may_ask_for_less_of_a_step_and_never_for_more(cache, memory, train, own, run, recorded):
    await cache.record(train(policy=Policy(own), override=run))
    assert bool(memory.entries) is recorded


async def test_the_first_result_stays_and_a_different_one_is_told(cache, memory, train, clock):
    await cache.record(train("r1", gave={"accuracy": "0.9", "loss": "1"}))
    await cache.record(train("r2", gave={"accuracy": "0.8", "loss": "1"}, at=clock.now + timedelta(hours=1)))
    (entry,) = memory.entries.values()
    assert entry.maker.run == "r1"
    (diverged,) = told(memory, "EntryDiverged")
    assert (diverged.run, list(diverged.outputs)) == ("r2", ["parameters.accuracy"])


async def test_other_bytes_are_a_divergence_and_another_place_is_none(cache, memory, train, objects, clock):
    await cache.record(train("r1", made={"m": objects.put("one", b"same")}))
    later = clock.now + timedelta(hours=1)
    await cache.record(train("r2", made={"m": objects.put("two", b"same")}, at=later))
    assert told(memory, "EntryDiverged") == []
    await cache.record(train("r3", made={"m": objects.put("three", b"other")}, at=later))
    assert [list(d.outputs) for d in told(memory, "EntryDiverged")] == [["artifacts.m"]]


async def test_a_refresh_replaces_the_entry(cache, memory, train, clock):
    await cache.record(train("r1"))
    later = clock.now + timedelta(hours=1)
    await cache.record(train("r2", gave={"accuracy": "0.8"}, override=Mode.REFRESH, at=later))
    (entry,) = memory.entries.values()
    assert (entry.maker.run, entry.outputs.parameter("accuracy")) == ("r2", "0.8")
    assert told(memory, "EntryDiverged") == []


async def test_a_refresh_that_is_older_than_the_entry_does_not_replace_it(cache, memory, train, clock):
    await cache.record(train("r1"))
    earlier = clock.now - timedelta(hours=1)
    await cache.record(train("r0", gave={"accuracy": "0.8"}, override=Mode.REFRESH, at=earlier))
    assert [entry.maker.run for entry in memory.entries.values()] == ["r1"]


async def test_an_old_result_neither_replaces_nor_contradicts_a_buried_entry(cache, memory, train, clock):
    await cache.record(train("r1"))
    (fingerprint,) = memory.entries
    await memory.bury("p", [Burial(fingerprint, "r1", "main.train", "bad data")], clock.now)
    earlier = clock.now - timedelta(hours=1)
    await cache.record(train("r0", gave={"accuracy": "0.8"}, at=earlier))
    assert [(e.maker.run, e.buried) for e in memory.entries.values()] == [("r1", "bad data")]
    assert told(memory, "EntryDiverged") == []


async def test_an_expired_entry_is_replaced(cache, memory, train, clock):
    await cache.record(train("r1", policy=Policy(ttl=timedelta(hours=1))))
    later = clock.now + timedelta(hours=2)
    await cache.record(train("r2", gave={"accuracy": "0.8"}, at=later))
    (entry,) = memory.entries.values()
    assert (entry.maker.run, entry.expires_at) == ("r2", None)


async def test_an_entry_too_old_for_who_ran_it_again_is_replaced(cache, memory, train, clock):
    await cache.record(train("r1"))
    later = clock.now + timedelta(hours=2)
    policy = Policy(ttl=timedelta(hours=1))
    await cache.record(train("r2", gave={"accuracy": "0.8"}, policy=policy, at=later))
    (entry,) = memory.entries.values()
    assert (entry.maker.run, entry.expires_at) == ("r2", later + timedelta(hours=1))


async def test_the_same_result_again_makes_an_entry_young(cache, memory, train, clock):
    policy = Policy(ttl=timedelta(hours=2))
    await cache.record(train("r1", policy=policy))
    later = clock.now + timedelta(hours=1)
    await cache.record(train("r2", policy=policy, at=later))
    (entry,) = memory.entries.values()
    assert (entry.maker.run, entry.confirmed_at) == ("r1", later)
    assert entry.expires_at == later + timedelta(hours=2)


async def test_ignored_inputs_are_no_part_of_the_key(cache, memory, train, clock):
    policy = Policy(ignored=frozenset({"name"}))
    await cache.record(train("r1", parameters={"c": "1", "name": "a"}, policy=policy))
    later = clock.now + timedelta(hours=1)
    await cache.record(train("r2", parameters={"c": "1", "name": "b"}, policy=policy, at=later))
    assert len(memory.entries) == 1


async def test_an_input_that_was_overwritten_meanwhile_leaves_no_entry(cache, memory, train, objects, clock):
    changed = objects.put("data", at=clock.now - timedelta(seconds=30))  # the step began a minute before
    await cache.record(train(given={"data": changed}))
    assert memory.entries == {}
    (attempt,) = memory.attempts.values()
    assert attempt.reason == "the object data was overwritten meanwhile"


async def test_an_output_that_was_overwritten_since_leaves_no_entry(cache, memory, train, objects, clock):
    await cache.record(train(made={"model": objects.put("model", at=clock.now + timedelta(seconds=5))}))
    assert memory.entries == {}
    (attempt,) = memory.attempts.values()
    assert attempt.unkept == "the object model was overwritten meanwhile"


async def test_an_output_that_is_gone_leaves_no_entry(cache, memory, train, objects, clock):
    kept, gone = objects.put("kept"), objects.put("gone")
    del objects.found[gone]
    await cache.record(train(made={"kept": kept, "gone": gone}))
    assert memory.entries == {}
    assert "gone" in next(iter(memory.attempts.values())).unkept
    (digested,) = told(memory, "ArtifactsDigested")
    assert [a.name for a in digested.outputs] == ["kept"]


async def test_an_object_store_that_is_away_means_later(cache, memory, train, objects):
    step = train(made={"model": objects.put("model")})
    objects.away = True
    with pytest.raises(Unavailable):
        await cache.record(step)
    assert memory.attempts == {}
    objects.away = False
    await cache.record(step)
    assert len(memory.entries) == 1


async def test_a_step_without_artifacts_needs_no_object_store(cache, memory, train, objects):
    objects.away = True
    await cache.record(train())
    assert len(memory.entries) == 1


async def test_a_step_that_ends_in_the_future_is_refused(cache, train, clock):
    await cache.record(train(at=clock.now + timedelta(hours=23)))
    (problem,) = await cache.record(train(at=clock.now + timedelta(hours=25)))
    assert "future" in str(problem)


async def test_a_bad_document_is_refused_and_what_came_with_it_is_recorded(cache, memory, train, objects):
    step = train()
    bad = replace(step, run="r2", template=replace(step.template, document='{"a": NaN}'))
    read = replace(bad, run="r3", outputs=train(made={"model": objects.put("model")}).outputs)
    first, second, third, fourth = await cache.record(bad, step, read, replace(step, run="r4"))
    assert (type(first), second, type(third), fourth) == (Invalid, None, Invalid, None)
    assert {run for _, run, _ in memory.attempts} == {"r1", "r4"}


async def test_no_step_waits_until_the_artifact_of_another_is_read(
    cache, memory, train, objects, monkeypatch
):
    reads, go = asyncio.Event(), asyncio.Event()
    digest = objects.digest

    async def slowly(place):
        reads.set()
        await go.wait()
        return await digest(place)

    monkeypatch.setattr(objects, "digest", slowly)
    both = asyncio.create_task(cache.record(train("r1", made={"model": objects.put("model")}), train("r2")))
    await reads.wait()
    async with asyncio.timeout(10):
        while not memory.attempts:  # noqa: ASYNC110 - what is waited for is plain data
            await asyncio.sleep(0)
    assert {run for _, run, _ in memory.attempts} == {"r2"}
    go.set()
    await both
    assert {run for _, run, _ in memory.attempts} == {"r1", "r2"}


async def test_a_step_of_which_nothing_is_known_leaves_no_entry(cache, memory, train):
    step = train()
    await cache.record(replace(step, template=replace(step.template, document="{}")))
    assert memory.entries == {}


async def test_hits_are_counted_once_with_what_they_saved(cache, memory, train):
    await cache.record(train("r1"))
    (fingerprint,) = memory.entries
    hit = replace(
        train("r2", phase=Phase.CACHED),
        fingerprint=fingerprint,
        producer_run="r1",
        saved=timedelta(seconds=60),
    )
    await cache.record(hit)
    await cache.record(hit)
    await cache.record(replace(hit, run="r3"))
    savings = await cache.savings("p", "")
    assert (savings.hits, savings.saved) == (2, timedelta(seconds=120))
    assert (await cache.savings("p", "r3")).hits == 1
    assert (await cache.savings("q", "")).hits == 0
    assert (await cache.entry("p", fingerprint)).hits == 2


async def test_what_was_recorded_is_found_by_the_plan_that_names_it(cache, train, objects):
    """The two ways to a fingerprint, from a plan and from what was observed, are one."""
    data = objects.put("data", b"rows")
    step = train(parameters={"c": "0.1", "n": ""}, given={"data": data})
    await cache.record(step)
    query = StepQuery("s", "t", (("n", ()), ("c", (Literal("0"), Literal(".1")))), (("data", Object(data)),))
    (found,) = await cache.resolve(Plan("p", {"t": step.template}, (query,)))
    assert found.verdict is Verdict.HIT
