"""Recording finished steps, with stores in memory: which results become entries, which do not, and why."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from cache_requests import resolve_request

from periplus.cache.v1 import events_pb2 as out
from periplus_cache.domain import Invalidation
from periplus_common import digest
from periplus_common.errors import Invalid, Unavailable
from periplus_model.queries import Literal, Raw, StepQuery
from periplus_model.steps import Artifact, CacheMode, CachePolicy, ObjectRef, OmittedValue, StepPhase, Verdict


def published(memory, kind: str):
    """The events of a type."""
    message = getattr(out, kind)
    name = message.DESCRIPTOR.full_name
    return [message.FromString(e.body) for e in memory.events if e.headers["ce-type"] == name]


async def test_a_result_becomes_an_entry_and_is_published(cache, memory, finished, objects):
    data, model = objects.put("data", b"data"), objects.put("model", b"model")
    await cache.record(finished(input_artifacts={"data": data}, output_artifacts={"model": model}))
    (entry,) = memory.entries.values()
    assert entry.outputs.artifact("model").digest.startswith("sha256:")
    assert entry.producer.duration == timedelta(seconds=60)
    (recorded,) = published(memory, "EntryRecorded")
    assert (recorded.fingerprint, recorded.producer_run, recorded.producer_step) == (
        entry.fingerprint,
        "r1",
        "main.train",
    )
    (digested,) = published(memory, "ArtifactsDigested")
    assert [(a.name, a.size_bytes) for a in (*digested.inputs, *digested.outputs)] == [
        ("data", 4),
        ("model", 5),
    ]
    assert all(a.digest for a in (*digested.inputs, *digested.outputs))


async def test_a_step_with_an_input_in_the_manifest_is_a_hit_with_the_same_text_only(cache, memory, finished):
    conf = Artifact("conf", ObjectRef("raw"), digest.of_bytes(b"lr: 0.1"), size_bytes=7)
    recorded = finished(parameters={})
    await cache.record(replace(recorded, inputs=replace(recorded.inputs, artifacts=(conf,))))
    assert published(memory, "ArtifactsDigested") == []
    for text, verdict in (("lr: 0.1", Verdict.HIT), ("lr: 0.9", Verdict.MISS)):
        query = StepQuery("s", "train", artifacts={"conf": Raw(text)})
        (found,) = await cache.resolve(resolve_request(query, train=recorded.template))
        assert found.verdict is verdict


@pytest.mark.parametrize(("name", "said"), [("o", "its output o"), ("", "its result")])
async def test_a_step_with_an_omitted_output_has_no_entry_and_says_why(cache, memory, finished, name, said):
    step = finished()
    omitted = {name: OmittedValue(digest.sha256(b"x"), 300_000)}
    await cache.record(replace(step, outputs=replace(step.outputs, omitted=omitted)))
    assert memory.entries == {}
    (attempt,) = memory.attempts.values()
    assert attempt.not_recorded_reason == f"{said} has 300,000 bytes, which is too large to be kept"


async def test_recording_a_step_again_changes_nothing(cache, memory, finished, objects):
    step = finished(output_artifacts={"model": objects.put("model")})
    await cache.record(step)
    before = (dict(memory.entries), len(memory.events))
    for _ in range(3):
        await cache.record(step)
    assert (memory.entries, len(memory.events)) == before


async def test_an_event_that_is_delivered_again_does_not_restore_an_invalid_entry(cache, memory, finished):
    step = finished()
    await cache.record(step)
    (fingerprint,) = memory.entries
    await memory.invalidate(
        "p", [Invalidation(fingerprint, "r1", "main.train", "bad data")], step.finished_at
    )
    await cache.record(step)
    assert memory.entries[fingerprint].invalidation_reason == "bad data"


@pytest.mark.parametrize(
    "changed",
    [
        {"policy": CachePolicy(CacheMode.OFF)},
        {"policy": CachePolicy(CacheMode.READ)},
        {"policy": CachePolicy(side_effects=True)},
        {"uncacheable_reason": "it mounts a volume"},
        {"run_mode": CacheMode.OFF},
        {"phase": StepPhase.FAILED},
        {"phase": StepPhase.ERROR},
    ],
    ids=str,
)
async def test_a_step_that_is_not_cached_has_digests_and_no_entry(cache, memory, finished, objects, changed):
    await cache.record(finished(output_artifacts={"model": objects.put("model")}, **changed))
    assert memory.entries == {}
    assert len(published(memory, "ArtifactsDigested")) == 1
    assert len(memory.attempts) == 1


@pytest.mark.parametrize(
    ("own", "run", "recorded"),
    [
        (CacheMode.OFF, CacheMode.REFRESH, False),
        (CacheMode.READ, CacheMode.REFRESH, False),
        (CacheMode.WRITE, CacheMode.REFRESH, True),
        (CacheMode.READWRITE, CacheMode.REFRESH, True),
        (CacheMode.REFRESH, CacheMode.OFF, False),
        (CacheMode.READWRITE, None, True),
    ],
)
async def test_a_run_restricts_what_is_recorded_and_allows_no_more(
    cache, memory, finished, own, run, recorded
):
    await cache.record(finished(policy=CachePolicy(own), run_mode=run))
    assert bool(memory.entries) is recorded


async def test_the_first_result_stays_and_a_different_one_is_published_as_diverged(
    cache, memory, finished, clock
):
    await cache.record(finished("r1", output_parameters={"accuracy": "0.9", "loss": "1"}))
    await cache.record(
        finished("r2", output_parameters={"accuracy": "0.8", "loss": "1"}, at=clock.now + timedelta(hours=1))
    )
    (entry,) = memory.entries.values()
    assert entry.producer.run == "r1"
    (diverged,) = published(memory, "EntryDiverged")
    assert (diverged.run, list(diverged.outputs)) == ("r2", ["parameters.accuracy"])


async def test_other_content_diverges_and_the_same_content_elsewhere_does_not(
    cache, memory, finished, objects, clock
):
    await cache.record(finished("r1", output_artifacts={"m": objects.put("one", b"same")}))
    later = clock.now + timedelta(hours=1)
    await cache.record(finished("r2", output_artifacts={"m": objects.put("two", b"same")}, at=later))
    assert published(memory, "EntryDiverged") == []
    await cache.record(finished("r3", output_artifacts={"m": objects.put("three", b"other")}, at=later))
    assert [list(d.outputs) for d in published(memory, "EntryDiverged")] == [["artifacts.m"]]


async def test_a_refresh_replaces_the_entry(cache, memory, finished, clock):
    await cache.record(finished("r1"))
    later = clock.now + timedelta(hours=1)
    await cache.record(
        finished("r2", output_parameters={"accuracy": "0.8"}, run_mode=CacheMode.REFRESH, at=later)
    )
    (entry,) = memory.entries.values()
    assert (entry.producer.run, entry.outputs.parameters["accuracy"]) == ("r2", "0.8")
    assert published(memory, "EntryDiverged") == []


async def test_a_refresh_that_is_older_than_the_entry_does_not_replace_it(cache, memory, finished, clock):
    await cache.record(finished("r1"))
    earlier = clock.now - timedelta(hours=1)
    await cache.record(
        finished("r0", output_parameters={"accuracy": "0.8"}, run_mode=CacheMode.REFRESH, at=earlier)
    )
    assert [entry.producer.run for entry in memory.entries.values()] == ["r1"]


async def test_an_old_result_neither_replaces_an_invalid_entry_nor_diverges_from_it(
    cache, memory, finished, clock
):
    await cache.record(finished("r1"))
    (fingerprint,) = memory.entries
    await memory.invalidate("p", [Invalidation(fingerprint, "r1", "main.train", "bad data")], clock.now)
    earlier = clock.now - timedelta(hours=1)
    await cache.record(finished("r0", output_parameters={"accuracy": "0.8"}, at=earlier))
    assert [(e.producer.run, e.invalidation_reason) for e in memory.entries.values()] == [("r1", "bad data")]
    assert published(memory, "EntryDiverged") == []


async def test_an_expired_entry_is_replaced(cache, memory, finished, clock):
    await cache.record(finished("r1", policy=CachePolicy(ttl=timedelta(hours=1))))
    later = clock.now + timedelta(hours=2)
    await cache.record(finished("r2", output_parameters={"accuracy": "0.8"}, at=later))
    (entry,) = memory.entries.values()
    assert (entry.producer.run, entry.expires_at) == ("r2", None)


async def test_an_entry_older_than_the_ttl_of_the_new_result_is_replaced(cache, memory, finished, clock):
    await cache.record(finished("r1"))
    later = clock.now + timedelta(hours=2)
    policy = CachePolicy(ttl=timedelta(hours=1))
    await cache.record(finished("r2", output_parameters={"accuracy": "0.8"}, policy=policy, at=later))
    (entry,) = memory.entries.values()
    assert (entry.producer.run, entry.expires_at) == ("r2", later + timedelta(hours=1))


async def test_the_same_result_again_renews_the_time_to_live(cache, memory, finished, clock):
    policy = CachePolicy(ttl=timedelta(hours=2))
    await cache.record(finished("r1", policy=policy))
    later = clock.now + timedelta(hours=1)
    await cache.record(finished("r2", policy=policy, at=later))
    (entry,) = memory.entries.values()
    assert (entry.producer.run, entry.confirmed_at) == ("r1", later)
    assert entry.expires_at == later + timedelta(hours=2)


async def test_ignored_inputs_are_not_part_of_the_key(cache, memory, finished, clock):
    policy = CachePolicy(ignore_inputs=frozenset({"name"}))
    await cache.record(finished("r1", parameters={"c": "1", "name": "a"}, policy=policy))
    later = clock.now + timedelta(hours=1)
    await cache.record(finished("r2", parameters={"c": "1", "name": "b"}, policy=policy, at=later))
    assert len(memory.entries) == 1


async def test_a_step_whose_input_was_overwritten_meanwhile_has_no_entry(
    cache, memory, finished, objects, clock
):
    changed = objects.put("data", at=clock.now - timedelta(seconds=30))  # the step began a minute before
    await cache.record(finished(input_artifacts={"data": changed}))
    assert memory.entries == {}
    (attempt,) = memory.attempts.values()
    assert attempt.uncacheable_reason == "the object data was overwritten meanwhile"


async def test_a_step_whose_output_was_overwritten_since_has_no_entry(
    cache, memory, finished, objects, clock
):
    await cache.record(
        finished(output_artifacts={"model": objects.put("model", at=clock.now + timedelta(seconds=5))})
    )
    assert memory.entries == {}
    (attempt,) = memory.attempts.values()
    assert attempt.not_recorded_reason == "the object model was overwritten meanwhile"


def version_said(step, etag: str):
    """The step as an Argo reports it that says which versions it read and wrote."""
    said = tuple(replace(artifact, etag=etag) for artifact in step.outputs.artifacts)
    read = tuple(replace(artifact, etag=etag) for artifact in step.inputs.artifacts)
    return replace(
        step, inputs=replace(step.inputs, artifacts=read), outputs=replace(step.outputs, artifacts=said)
    )


@pytest.mark.parametrize("direction", ["input_artifacts", "output_artifacts"])
async def test_the_version_that_argo_says_counts_and_no_clock(
    cache, memory, finished, objects, clock, direction
):
    late = objects.put("late", at=clock.now + timedelta(minutes=1))  # a slow upload, or a clock that is ahead
    (version,) = (await objects.versions([late])).values()
    await cache.record(version_said(finished("r1", **{direction: {"a": late}}), version.etag))
    assert [entry.producer.run for entry in memory.entries.values()] == ["r1"]
    early = objects.put("early", content=b"of another", at=clock.now - timedelta(days=1))
    await cache.record(version_said(finished("r2", **{direction: {"b": early}}), version.etag))
    assert len(memory.entries) == 1
    reasons = {
        run: attempt.uncacheable_reason + attempt.not_recorded_reason
        for (_, run, _), attempt in memory.attempts.items()
    }
    assert reasons == {"r1": "", "r2": "the object early was overwritten meanwhile"}


async def test_an_object_of_a_pod_of_the_run_is_its_own_although_the_clocks_differ(
    cache, memory, finished, objects, clock
):
    """Argo on a cluster does not say the version; nothing else writes below the name of a pod."""
    ahead = clock.now + timedelta(seconds=30)
    own = objects.put("projects/p/r1/r1-train-1234567890/model.tgz", at=ahead)
    await cache.record(finished("r1", output_artifacts={"model": own}))
    assert len(memory.entries) == 1
    other = objects.put("projects/p/r3/r3-train-1234567890/model.tgz", at=ahead)
    await cache.record(finished("r2", parameters={"c": "2"}, output_artifacts={"model": other}))
    assert len(memory.entries) == 1
    late = objects.put("projects/p/r4/r4-1/model.tgz", at=clock.now + timedelta(minutes=6))
    await cache.record(finished("r4", parameters={"c": "3"}, output_artifacts={"model": late}))
    assert len(memory.entries) == 1


async def test_a_step_whose_output_is_gone_has_no_entry(cache, memory, finished, objects, clock):
    present, gone = objects.put("present"), objects.put("gone")
    del objects.objects[gone]
    await cache.record(finished(output_artifacts={"present": present, "gone": gone}))
    assert memory.entries == {}
    assert "gone" in next(iter(memory.attempts.values())).not_recorded_reason
    (digested,) = published(memory, "ArtifactsDigested")
    assert [a.name for a in digested.outputs] == ["present"]


async def test_while_the_object_store_is_down_nothing_is_recorded(cache, memory, finished, objects):
    step = finished(output_artifacts={"model": objects.put("model")})
    objects.is_down = True
    with pytest.raises(Unavailable):
        await cache.record(step)
    assert memory.attempts == {}
    objects.is_down = False
    await cache.record(step)
    assert len(memory.entries) == 1


async def test_a_step_without_artifacts_needs_no_object_store(cache, memory, finished, objects):
    objects.is_down = True
    await cache.record(finished())
    assert len(memory.entries) == 1


async def test_a_step_that_finishes_in_the_future_is_refused(cache, finished, clock):
    await cache.record(finished(at=clock.now + timedelta(hours=23)))
    (problem,) = await cache.record(finished(at=clock.now + timedelta(hours=25)))
    assert "future" in str(problem)


async def test_an_invalid_document_is_refused_and_the_other_steps_are_recorded(
    cache, memory, finished, objects
):
    step = finished()
    bad = replace(step, run="r2", template=replace(step.template, document='{"a": NaN}'))
    read = replace(bad, run="r3", outputs=finished(output_artifacts={"model": objects.put("model")}).outputs)
    first, second, third, fourth = await cache.record(bad, step, read, replace(step, run="r4"))
    assert (type(first), second, type(third), fourth) == (Invalid, None, Invalid, None)
    assert {run for _, run, _ in memory.attempts} == {"r1", "r4"}


async def test_no_step_waits_until_the_artifact_of_another_is_read(
    cache, memory, finished, objects, monkeypatch
):
    reads, go = asyncio.Event(), asyncio.Event()
    digest = objects.read_digest

    async def slowly(ref):
        reads.set()
        await go.wait()
        return await digest(ref)

    monkeypatch.setattr(objects, "read_digest", slowly)
    both = asyncio.create_task(
        cache.record(finished("r1", output_artifacts={"model": objects.put("model")}), finished("r2"))
    )
    await reads.wait()
    async with asyncio.timeout(60):
        while not memory.attempts:  # noqa: ASYNC110 - what is waited for is plain data
            await asyncio.sleep(0)
    assert {run for _, run, _ in memory.attempts} == {"r2"}
    go.set()
    await both
    assert {run for _, run, _ in memory.attempts} == {"r1", "r2"}


async def test_a_step_with_an_empty_document_has_no_entry(cache, memory, finished):
    step = finished()
    await cache.record(replace(step, template=replace(step.template, document="{}")))
    assert memory.entries == {}


async def test_hits_are_counted_once_with_what_they_saved(cache, memory, finished):
    await cache.record(finished("r1"))
    (fingerprint,) = memory.entries
    hit = replace(
        finished("r2", phase=StepPhase.CACHED),
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


async def test_a_query_has_the_fingerprint_of_the_step_that_was_recorded(cache, finished, objects):
    """The two ways to a fingerprint, from a plan and from what was observed, are one."""
    data = objects.put("data", b"rows")
    step = finished(parameters={"c": "0.1", "n": ""}, input_artifacts={"data": data})
    await cache.record(step)
    query = StepQuery("s", "t", {"n": (), "c": (Literal("0"), Literal(".1"))}, {"data": data})
    (found,) = await cache.resolve(resolve_request(query, t=step.template))
    assert found.verdict is Verdict.HIT
