"""What the cache would have saved in runs that others submitted."""

from dataclasses import replace
from datetime import timedelta

from cache_memory import NOON

from periplus_cache.domain import Attempt, PipelineShadow, Recording
from periplus_model.steps import CacheMode, CachePolicy, StepPhase, Verdict

HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)


def ran(number=1, run="r1", *, at=NOON, **more):
    """A step of a run of Periplus; `number` is that of its key."""
    return Recording(
        Attempt(
            project="p", run=run, step=f"s{number}", template="t", phase=StepPhase.SUCCEEDED, verdict=Verdict.MISS,
            finished_at=at, fingerprint=f"sha256:{number:064x}", static_key=f"sha256:{1:064x}", **more,
        ),
        "{}", 0, CachePolicy(),
    )  # fmt: skip


def observed(number=1, run="r1", *, pipeline="digits", pods=1, duration=HOUR, **more):
    return ran(number, run, observed_pipeline=pipeline, pods=pods, duration=duration, **more)


async def test_a_step_whose_key_had_succeeded_before_it_started_would_have_been_cached(store):
    store, _ = store
    await store.record(
        observed(1, "r1", at=NOON),
        observed(1, "r2", at=NOON + HOUR, pods=3),
        observed(2, "r2", at=NOON + 2 * HOUR, duration=MINUTE),
    )
    (found,) = await store.shadow_savings("p", "", None, 10)
    assert found == PipelineShadow(
        "digits", runs=2, steps=3, hits=1, saved=HOUR, saved_pods=3, duration=2 * HOUR + MINUTE
    )


async def test_two_steps_that_ran_at_the_same_time_save_nothing(store):
    store, _ = store
    await store.record(observed(1, "r1", at=NOON), observed(1, "r2", at=NOON + HOUR - MINUTE))
    (found,) = await store.shadow_savings("p", "", None, 10)
    assert (found.hits, found.steps) == (0, 2)


async def test_of_two_steps_within_the_same_second_one_alone_would_have_been_cached(store):
    store, _ = store
    await store.record(*(observed(1, run, at=NOON, duration=timedelta()) for run in ("r1", "r2")))
    (found,) = await store.shadow_savings("p", "", None, 10)
    assert (found.hits, found.steps) == (1, 2)


async def test_what_failed_can_not_be_cached_or_was_not_readable_saves_nothing(store):
    store, _ = store
    failed = observed(1, "r1")
    await store.record(
        replace(failed, attempt=replace(failed.attempt, phase=StepPhase.FAILED)),
        observed(2, "r1", not_recorded_reason="an object is gone"),
        observed(3, "r1", uncacheable_reason="its image can change"),
        observed(1, "r2", at=NOON + 2 * HOUR),
        observed(2, "r2", at=NOON + 2 * HOUR),
        observed(3, "r2", at=NOON + 2 * HOUR, uncacheable_reason="its image can change"),
    )
    (found,) = await store.shadow_savings("p", "", None, 10)
    assert (found.hits, found.saved_pods, found.saved) == (0, 0, timedelta())
    assert (found.uncacheable_steps, found.uncacheable_reason) == (2, "its image can change")


async def test_a_run_of_periplus_is_a_producer_and_is_not_in_the_report(store):
    store, _ = store
    await store.record(ran(1, "own"), observed(1, "r2", at=NOON + 2 * HOUR))
    (found,) = await store.shadow_savings("p", "", None, 10)
    assert (found.runs, found.steps, found.hits) == (1, 1, 1)


async def test_pipelines_can_be_chosen_by_name_and_steps_by_time_and_large_savings_come_first(store):
    store, _ = store
    await store.record(
        *(observed(n, "r1", at=NOON) for n in (1, 2)),
        observed(1, "r2", at=NOON + 3 * HOUR, pipeline="small", duration=MINUTE),
        observed(2, "r3", at=NOON + 4 * HOUR, pipeline="large"),
    )

    async def names(pipeline="", after=None, limit=10):
        return [each.pipeline for each in await store.shadow_savings("p", pipeline, after, limit)]

    assert await names() == ["large", "small", "digits"]
    assert await names("small") == ["small"]
    assert await names(after=NOON + 4 * HOUR) == ["large"]
    assert await names(limit=1) == ["large"]
    assert await store.shadow_savings("other", "", None, 10) == []


async def test_an_observed_step_is_recorded_only_if_the_runs_mode_allows_it(cache, memory, finished):
    step = replace(finished(run_mode=CacheMode.OFF), observed_pipeline="digits", pods=2)
    await cache.record(step)
    assert not memory.entries
    (attempt,) = memory.attempts.values()
    assert (attempt.uncacheable_reason, attempt.pods, attempt.duration.total_seconds()) == ("", 2, 60)
    assert attempt.fingerprint
    assert "only observes" in (await cache.explain("p", "r1", "main.train")).reason
    await cache.record(replace(finished(run="r2", run_mode=CacheMode.WRITE), observed_pipeline="digits"))
    (entry,) = memory.entries.values()
    assert entry.fingerprint == attempt.fingerprint


async def test_an_observed_step_whose_output_is_gone_is_no_producer(cache, memory, finished, objects):
    gone = objects.put("gone")
    del objects.objects[gone]
    step = finished(output_artifacts={"model": gone}, run_mode=CacheMode.OFF)
    await cache.record(replace(step, observed_pipeline="digits"))
    (attempt,) = memory.attempts.values()
    assert attempt.not_recorded_reason


async def test_an_observed_step_that_claims_an_object_of_another_project_is_not_recorded(
    cache, memory, finished, objects
):
    secret = objects.put("projects/other/secret")
    step = finished(output_artifacts={"model": secret}, run_mode=CacheMode.WRITE)
    await cache.record(replace(step, observed_pipeline="digits"))
    assert not memory.entries
    (attempt,) = memory.attempts.values()
    assert "projects/other/secret" in attempt.not_recorded_reason
    assert objects.reads == 0
