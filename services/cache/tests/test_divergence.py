"""Steps that gave other outputs than the entry of their key: they are recorded, told, and end the caching of a template that asks for it."""

from dataclasses import replace
from datetime import timedelta

import pytest
from cache_requests import resolve_request, step, template, verdicts

from periplus_cache.domain import EntrySelector
from periplus_cache.explain.explanation import Explanation
from periplus_cache.service import Cache
from periplus_model.steps import CacheMode, CachePolicy, Verdict

STOPS = CachePolicy(CacheMode.READWRITE, stop_on_divergence=True)
DIFFERENT = ({"o": "1", "same": "x"}, {"o": "2", "same": "x"})


@pytest.fixture
def cache(store, objects, clock) -> Cache:
    """The cache on a store in memory, and on Postgres."""
    return Cache(store[0], objects, clock=clock)


@pytest.fixture
def twice(cache, finished, clock):
    """Records two equal steps, of which the second may give other outputs; or a third one in a run of its own."""

    async def record(*outputs, policy=STOPS, runs=("r1", "r2", "r3")):
        for run, found in zip(runs, outputs, strict=False):
            clock.move(minutes=1)
            await cache.record(
                finished(
                    run,
                    "main.a",
                    document={"does": "a"},
                    name="a",
                    parameters={},
                    output_parameters=found,
                    policy=policy,
                    at=clock.now,
                )
            )

    return record


async def test_a_divergence_is_recorded_with_both_steps_and_the_outputs_that_differ(cache, twice):
    await twice(*DIFFERENT)
    (found,), recorded = await cache.divergences("p", "r2")
    assert (found.run, found.step, found.producer_run, found.producer_step) == (
        "r2",
        "main.a",
        "r1",
        "main.a",
    )
    assert (found.outputs, recorded) == (("parameters.o",), 1)
    assert await cache.divergences("p", "r1") == ([], 1)
    assert await cache.divergences("other", "") == ([], 0)


async def test_equal_outputs_and_those_of_another_key_are_no_divergence(cache, twice, finished, clock):
    await twice({"o": "1"}, {"o": "1"})
    await cache.record(finished("r3", "main.b", document={"does": "b"}, output_parameters={"o": "2"}))
    assert await cache.divergences("p", "") == ([], 0)


async def test_why_tells_of_both_steps_that_they_diverged(cache, twice):
    await twice(*DIFFERENT)

    async def told(run: str) -> Explanation:
        return await cache.explain("p", run, "main.a")

    for run in ("r1", "r2"):
        (found,) = (await told(run)).divergences
        assert (found.run, found.producer_run) == ("r2", "r1")


async def test_a_template_is_cached_in_spite_of_a_divergence_unless_its_policy_says_otherwise(cache, twice):
    await twice(*DIFFERENT, policy=CachePolicy())
    found = await verdicts(cache, resolve_request(step("s", "a")))
    assert found["s"].verdict is Verdict.HIT


async def test_a_template_that_stops_on_divergence_is_not_cached_until_the_entry_is_invalidated(cache, twice):
    request = resolve_request(step("s", "a"), a=template("a", STOPS))
    await twice({"o": "1"})
    assert (await verdicts(cache, request))["s"].verdict is Verdict.HIT
    await twice({"o": "2"}, runs=("r2",))
    found = (await verdicts(cache, request))["s"]
    assert found.verdict is Verdict.UNCACHEABLE
    assert found.reason.startswith(
        "it stops on divergence: step main.a of run r2 gave another parameters.o than step main.a of run r1"
    )
    await cache.invalidate("p", EntrySelector(template="a"), "it was wrong")
    assert (await verdicts(cache, request))["s"].verdict is Verdict.MISS
    await twice({"o": "3"}, runs=("r4",))
    assert (await verdicts(cache, request))["s"].verdict is Verdict.HIT


async def test_a_refreshed_result_that_differs_is_told_and_is_served(cache, twice):
    await twice({"o": "1"})
    await twice({"o": "2"}, policy=replace(STOPS, mode=CacheMode.REFRESH), runs=("r2",))
    (found,), _ = await cache.divergences("p", "r2")
    assert (found.producer_run, found.is_resolved) == ("r1", True)
    found = (await verdicts(cache, resolve_request(step("s", "a"), a=template("a", STOPS))))["s"]
    assert (found.verdict, found.producer_run) == (Verdict.HIT, "r2")


async def test_a_result_after_the_time_to_live_is_no_divergence(cache, twice, clock):
    short = CachePolicy(ttl=timedelta(minutes=5))
    await twice({"o": "1"}, policy=short)
    clock.move(hours=1)
    await twice({"o": "2"}, policy=short, runs=("r2",))
    assert await cache.divergences("p", "") == ([], 0)
