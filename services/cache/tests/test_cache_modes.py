"""A step's own cache mode and its run's cache mode: what is looked up, what is recorded and what is replaced."""

from datetime import timedelta

import pytest
from cache_requests import HIT, MISS, UNCACHEABLE, resolve_request, step, template

from periplus_cache.service import Cache
from periplus_model.steps import CacheMode, CachePolicy

OFF, READ, WRITE, READWRITE, REFRESH = CacheMode

MODES = [
    # own mode, run's mode, verdict where there is an entry, whether a result is recorded, and whether it replaces
    (OFF, None, UNCACHEABLE, False, False),
    (OFF, REFRESH, UNCACHEABLE, False, False),
    (OFF, OFF, UNCACHEABLE, False, False),
    (READ, None, HIT, False, False),
    (READ, REFRESH, UNCACHEABLE, False, False),
    (READ, OFF, UNCACHEABLE, False, False),
    (WRITE, None, MISS, True, False),
    (WRITE, REFRESH, MISS, True, True),
    (WRITE, OFF, UNCACHEABLE, False, False),
    (READWRITE, None, HIT, True, False),
    (READWRITE, REFRESH, MISS, True, True),
    (READWRITE, OFF, UNCACHEABLE, False, False),
    (REFRESH, None, MISS, True, True),
    (REFRESH, REFRESH, MISS, True, True),
    (REFRESH, OFF, UNCACHEABLE, False, False),
]


@pytest.fixture
def cache(store, objects, clock) -> Cache:
    """A cache on each of the stores."""
    return Cache(store[0], objects, clock=clock)


@pytest.mark.parametrize(
    ("own", "run", "verdict", "is_recorded", "replaces"),
    MODES,
    ids=[f"{own.label}-in-{run.label if run else 'a-run-without'}" for own, run, *_ in MODES],
)
async def test_a_run_restricts_the_modes_of_its_steps(
    cache, recorded, clock, own, run, verdict, is_recorded, replaces
):
    policy = CachePolicy(own)
    await recorded("a", {"c": "1"}, {"y": "1"}, run="r1")
    request = resolve_request(step("s", c="1"), a=template("a", policy), run_mode=run)
    assert (await cache.resolve(request))[0].verdict is verdict

    async def producer(c: str) -> str:
        (found,) = await cache.resolve(resolve_request(step("s", c=c)))
        return found.producer_run

    more = {"policy": policy, "run_mode": run, "run": "r2", "at": clock.now}
    await recorded("a", {"c": "1"}, {"y": "2"}, **more)
    await recorded("a", {"c": "2"}, {"y": "2"}, step="main.other", **more)
    clock.move(seconds=timedelta(minutes=1).total_seconds())
    assert await producer("1") == ("r2" if replaces else "r1")
    assert await producer("2") == ("r2" if is_recorded else "")
