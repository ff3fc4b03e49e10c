"""Leases on Postgres: of the runs that make the same, one does, and its result is recorded while its token is current."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import timedelta

import pytest
from cache_memory import Clock, MemoryObjectStore
from cache_requests import HIT, MISS, UNKNOWN, resolve_request, step, template

from periplus_cache.domain import LEASE_LOST, EntrySelector
from periplus_cache.lease.unit import LeaseTimings
from periplus_cache.record.finished import FinishedStep
from periplus_cache.service import Cache
from periplus_cache.store.leases import PostgresLeases
from periplus_cache.store.postgres import PostgresStore
from periplus_cache.store.waits import EndedWaits
from periplus_common import postgres
from periplus_model.queries import Item, LeaseMode, LeaseState, Literal, OutputRef, StepQuery, StepVerdict
from periplus_model.steps import CacheMode, CachePolicy, StepPhase, Verdict

PENDING = Verdict.PENDING
RESERVE, ACQUIRE = LeaseMode.RESERVE, LeaseMode.ACQUIRE
TTL = timedelta(hours=1)
"""Leases expire in these tests when the test says so."""


@dataclass
class Runs:
    """A cache with leases, and what runs do with it."""

    cache: Cache
    database: postgres.Database
    waits: EndedWaits
    finished: object

    async def resolve(self, run: str, mode: LeaseMode, *steps: StepQuery, run_mode=None, **templates):
        steps = tuple(replace(each, lease=mode) for each in steps)
        request = replace(resolve_request(*steps, run_mode=run_mode, **templates), run=run)
        return {verdict.id: verdict for verdict in await self.cache.resolve(request)}

    async def one(self, run: str, mode: LeaseMode, query: StepQuery, **more) -> StepVerdict:
        return (await self.resolve(run, mode, query, **more))[query.id]

    async def finish(
        self,
        run: str,
        step_: str,
        verdict: StepVerdict | None = None,
        *,
        name="a",
        parameters=None,
        y="1",
        **more,
    ) -> None:
        done: FinishedStep = self.finished(
            run,
            step_,
            document={"does": name},
            name=name,
            parameters=parameters or {},
            output_parameters={"y": y},
            **more,
        )
        token = verdict.lease.token if verdict is not None and verdict.lease is not None else 0
        await self.cache.record(replace(done, lease_token=token))

    async def expire(self, run: str) -> None:
        async with self.database.connection() as connection:
            await connection.execute("UPDATE lease SET expires_at = now() WHERE run = $1", run)

    async def not_recorded(self, run: str, step_: str) -> str:
        details = await PostgresStore(self.database).attempt("p", run, step_)
        assert details is not None
        return details.attempt.not_recorded_reason

    async def count(self, table: str) -> int:
        async with self.database.connection() as connection:
            return await connection.fetchval(f"SELECT count(*) FROM {table}")


@pytest.fixture
async def runs(dsn: str, finished) -> AsyncIterator[Runs]:
    timings = LeaseTimings(
        ttl=TTL, grace=timedelta(), sweep=timedelta(milliseconds=50), timeout=timedelta(seconds=60)
    )
    async with postgres.database(dsn) as database:
        waits = EndedWaits(timings)
        cache = Cache(
            PostgresStore(database),
            MemoryObjectStore(),
            clock=Clock(),
            leases=PostgresLeases(database, timings),
            lease_timings=timings,
        )
        async with waits.listening(dsn):
            yield Runs(cache, database, waits, finished)


A = step("a", x="1")
B = step("b", "b", y=OutputRef("a", "y"))


async def test_a_step_that_another_run_makes_is_pending_and_its_verdict_says_who_makes_it(runs):
    first = await runs.one("r1", RESERVE, A)
    second = await runs.one("r2", RESERVE, A)
    assert (first.verdict, second.verdict) == (MISS, PENDING)
    assert second.reason.startswith("waiting for run r1, step a, since 20")
    assert second.lease == first.lease
    assert first.lease.run == "r1"


async def test_a_plan_shows_what_is_pending_and_takes_no_lease(runs):
    assert (await runs.one("", LeaseMode.NONE, A)).verdict is MISS
    assert await runs.count("lease") == 0
    await runs.one("r1", RESERVE, A)
    assert (await runs.one("", LeaseMode.NONE, A)).verdict is PENDING
    assert (await runs.one("r2", LeaseMode.NONE, A)).verdict is PENDING
    assert await runs.count("lease") == 1


async def test_a_run_that_asks_again_has_the_lease_that_it_had(runs):
    first = await runs.one("r1", RESERVE, A)
    again = await runs.one("r1", ACQUIRE, A)
    assert again.lease.token == first.lease.token


async def test_a_step_whose_inputs_another_run_is_about_to_make_is_pending_as_well(runs):
    first = await runs.resolve("r1", RESERVE, A, B)
    assert [v.verdict for v in first.values()] == [MISS, MISS]
    second = await runs.resolve("r2", RESERVE, A, B)
    assert [v.verdict for v in second.values()] == [PENDING, PENDING]
    # Also once the first step is recorded, so that the inputs of the second are values in other plans.
    await runs.finish("r1", "a", first["a"], parameters={"x": "1"})
    third = await runs.resolve("r3", RESERVE, A, B)
    assert [v.verdict for v in third.values()] == [HIT, PENDING]
    assert third["b"].lease == first["b"].lease


async def test_a_lease_ends_with_the_record_of_its_step(runs):
    first = await runs.one("r1", RESERVE, A)
    await runs.finish("r1", "a", first, parameters={"x": "1"})
    assert await runs.count("lease") == 0
    assert (await runs.one("r2", ACQUIRE, A)).verdict is HIT


@pytest.mark.parametrize("phase", [StepPhase.FAILED, StepPhase.ERROR, StepPhase.SKIPPED])
async def test_the_next_run_makes_a_step_that_failed_or_was_skipped(runs, phase):
    first = await runs.one("r1", RESERVE, A)
    await runs.finish("r1", "a", first, parameters={"x": "1"}, phase=phase)
    second = await runs.one("r2", ACQUIRE, A)
    assert (second.verdict, second.lease.run) == (MISS, "r2")
    assert second.lease.token > first.lease.token


async def test_a_retried_step_is_recorded_if_nobody_took_its_lease_over_meanwhile(runs, finished):
    first = await runs.one("r1", RESERVE, A)
    await runs.finish("r1", "a", first, parameters={"x": "1"}, phase=StepPhase.FAILED)
    later = runs.cache._recorder._clock() + timedelta(seconds=1)
    await runs.finish("r1", "a", first, parameters={"x": "1"}, at=later)
    assert (await runs.one("r2", RESERVE, A)).verdict is HIT


async def test_a_paused_holder_that_publishes_after_a_takeover_is_not_recorded(runs):
    """This test must fail without the check of the token: the paused holder would be the producer of the entry."""
    paused = await runs.one("r1", RESERVE, A)
    await runs.expire("r1")
    current = await runs.one("r2", ACQUIRE, A)
    assert current.verdict is MISS
    await runs.finish("r1", "a", paused, parameters={"x": "1"}, y="of the paused one")
    assert (await runs.one("r3", RESERVE, A)).verdict is PENDING
    await runs.finish("r2", "a", current, parameters={"x": "1"}, y="of the current one")
    served = await runs.one("r3", ACQUIRE, A)
    assert (served.verdict, served.producer_run, served.outputs.parameters) == (
        HIT,
        "r2",
        {"y": "of the current one"},
    )
    assert (await runs.not_recorded("r1", "a")) == LEASE_LOST


async def test_a_paused_holder_that_publishes_after_its_successor_changes_nothing(runs):
    paused = await runs.one("r1", RESERVE, A)
    await runs.expire("r1")
    current = await runs.one("r2", ACQUIRE, A)
    await runs.finish("r2", "a", current, parameters={"x": "1"}, y="of the current one")
    served = await runs.one("r3", ACQUIRE, A)
    await runs.cache.invalidate("p", EntrySelector(fingerprints=(served.fingerprint,)), "wrong")
    await runs.finish("r1", "a", paused, parameters={"x": "1"}, y="of the paused one")
    assert (await runs.one("r3", ACQUIRE, A)).verdict is MISS


async def test_a_holder_whose_lease_expired_and_that_nobody_replaced_is_recorded(runs):
    first = await runs.one("r1", RESERVE, A)
    await runs.expire("r1")
    assert await runs.cache.renew_leases("p", {first.lease.token: LeaseState.STARTED}, []) == []
    await runs.expire("r1")
    await runs.finish("r1", "a", first, parameters={"x": "1"})
    assert (await runs.one("r2", RESERVE, A)).verdict is HIT


async def test_a_renewal_says_which_leases_are_lost(runs):
    first = await runs.one("r1", RESERVE, A)
    other = await runs.one("r1", RESERVE, step("c", "c"))
    states = dict.fromkeys((first.lease.token, other.lease.token), LeaseState.RESERVED)
    await runs.expire("r1")
    await runs.one("r2", ACQUIRE, A)
    assert await runs.cache.renew_leases("p", states, []) == [first.lease.token]
    assert await runs.cache.renew_leases("q", states, []) == list(states)


async def test_the_end_of_a_run_ends_its_leases(runs):
    await runs.one("r1", RESERVE, A)
    await runs.cache.end_run("p", "r1")
    assert (await runs.one("r2", RESERVE, A)).verdict is MISS


@pytest.mark.parametrize("mode", [CacheMode.REFRESH, CacheMode.WRITE])
async def test_a_step_that_is_not_looked_up_neither_waits_nor_lets_others_wait(runs, mode):
    refreshed = await runs.one("r1", RESERVE, A, run_mode=mode)
    assert (refreshed.verdict, refreshed.lease) == (MISS, None)
    assert (await runs.one("r2", RESERVE, A)).lease.run == "r2"
    assert (await runs.one("r3", ACQUIRE, A, run_mode=mode)).verdict is MISS


async def test_a_step_that_is_not_recorded_waits_for_others_but_lets_none_wait(runs):
    reading = {"a": template("a", CachePolicy(mode=CacheMode.READ))}
    assert (await runs.one("r1", ACQUIRE, A, **reading)).lease is None
    held = await runs.one("r2", RESERVE, A)
    assert held.lease.run == "r2"
    assert (await runs.one("r1", ACQUIRE, A, **reading)).verdict is PENDING


async def test_a_run_does_not_wait_for_itself(runs):
    same = await runs.resolve("r1", ACQUIRE, A, replace(A, id="again"))
    assert [v.verdict for v in same.values()] == [MISS, MISS]
    assert [v.lease is not None for v in same.values()] == [True, False]
    assert (await runs.one("r1", ACQUIRE, replace(A, id="again"))).verdict is MISS


async def test_projects_do_not_share_leases(runs):
    query = replace(A, lease=ACQUIRE, planned_fingerprint="sha256:" + "7" * 64)
    for project in ("p", "q"):
        request = replace(resolve_request(query, project=project), run="r1")
        (verdict,) = await runs.cache.resolve(request)
        assert verdict.lease is not None, project


def fan(*items: str) -> StepQuery:
    return step("fan", items=(Literal("[" + ",".join(f'"{i}"' for i in items) + "]"),), x=Item())


async def test_a_fan_out_waits_for_the_items_that_others_make_and_holds_none_meanwhile(runs):
    first = await runs.one("r1", RESERVE, fan("1", "2"))
    assert [item.lease is not None for item in first.items] == [True, True]
    second = await runs.one("r2", ACQUIRE, fan("2", "3"))
    assert (second.verdict, [item.verdict for item in second.items]) == (PENDING, [PENDING, MISS])
    assert second.items[1].lease is None
    await runs.finish("r1", "fan(1)", first.items[1], parameters={"x": "2"})
    then = await runs.one("r2", ACQUIRE, fan("2", "3"))
    assert (then.verdict, [item.verdict for item in then.items]) == (UNKNOWN, [HIT, MISS])
    assert then.items[1].lease.run == "r2"


async def test_a_fan_out_whose_items_another_run_is_about_to_make_is_pending(runs):
    query = step("fan", items=(OutputRef("a", "y"),), x=Item())
    first = await runs.resolve("r1", RESERVE, A, query)
    assert first["fan"].lease.step == "fan"
    await runs.finish("r1", "a", first["a"], parameters={"x": "1"}, y='["1","2"]')
    assert (await runs.resolve("r2", RESERVE, A, query))["fan"].verdict is PENDING
    # Its items run under its lease, which does not end with the first of them.
    await runs.finish("r1", "fan(0)", first["fan"], parameters={"x": "1"})
    second = (await runs.resolve("r2", RESERVE, A, query))["fan"]
    assert [item.verdict for item in second.items] == [HIT, PENDING]
    await runs.cache.renew_leases("p", {first["fan"].lease.token: LeaseState.ENDED}, [])
    await runs.finish("r1", "fan(1)", first["fan"], parameters={"x": "2"})
    assert (await runs.resolve("r2", RESERVE, A, query))["fan"].verdict is HIT


async def ended(watch, count: int = 1) -> list[str]:
    """The next runs whose waits have ended."""
    found: list[str] = []
    async with asyncio.timeout(60):
        while len(found) < count:
            found += await anext(watch)
    return sorted(found)


async def test_all_who_wait_are_woken_when_the_step_is_recorded(runs):
    first = await runs.one("r1", ACQUIRE, A)
    async with aclosing(runs.waits.watch("p")) as watch, aclosing(runs.waits.watch("q")) as other:
        assert await anext(watch) == await anext(other) == []
        for run in ("r2", "r3", "r4"):
            assert (await runs.one(run, ACQUIRE, A)).verdict is PENDING
        await runs.finish("r1", "a", first, parameters={"x": "1"})
        assert await ended(watch, 3) == ["r2", "r3", "r4"]
    assert await runs.count("lease_wait") == 0


async def test_one_who_waits_is_woken_when_the_step_failed_and_the_next_when_that_one_does_not_ask(runs):
    first = await runs.one("r1", ACQUIRE, A)
    async with aclosing(runs.waits.watch("p")) as watch:
        await anext(watch)
        for run in ("r2", "r3"):
            await runs.one(run, ACQUIRE, A)
        await runs.finish("r1", "a", first, parameters={"x": "1"}, phase=StepPhase.FAILED)
        assert await ended(watch) == ["r2"]
        assert await ended(watch) == ["r3"]
        assert (await runs.one("r3", ACQUIRE, A)).lease.run == "r3"
        assert (await runs.one("r2", ACQUIRE, A)).verdict is PENDING


async def test_who_waits_is_woken_when_the_holder_is_dead(runs):
    await runs.one("r1", ACQUIRE, A)
    async with aclosing(runs.waits.watch("p")) as watch:
        await anext(watch)
        await runs.one("r2", ACQUIRE, A)
        await runs.expire("r1")  # without a notification: by the sweep
        assert await ended(watch) == ["r2"]
        assert (await runs.one("r2", ACQUIRE, A)).lease.run == "r2"


async def test_two_runs_that_hold_what_the_other_waits_for_do_not_wait_for_ever(runs):
    c = step("c", "c")
    await runs.one("r1", RESERVE, A)  # behind the gate of c in this run
    await runs.one("r2", RESERVE, c)  # behind the gate of a in that run
    assert (await runs.one("r1", ACQUIRE, c)).verdict is PENDING
    second = await runs.one("r2", ACQUIRE, A)
    assert second.verdict is MISS
    assert second.reason.startswith("run r1, step a, since ")
    assert second.reason.endswith(" does the same, but waits for this run")


async def test_a_run_waits_for_one_that_waits_for_it_elsewhere_if_the_step_has_started(runs):
    c = step("c", "c")
    held = await runs.one("r1", RESERVE, A)
    await runs.cache.renew_leases("p", {held.lease.token: LeaseState.STARTED}, [])
    await runs.one("r2", RESERVE, c)
    assert (await runs.one("r1", ACQUIRE, c)).verdict is PENDING
    assert (await runs.one("r2", ACQUIRE, A)).verdict is PENDING


async def test_of_many_runs_that_ask_at_once_one_gets_the_leases(runs):
    async def ask(number: int) -> list[Verdict]:
        found = await runs.resolve(f"r{number}", RESERVE, A, step("c", "c"), step("d", "d"))
        return [verdict.verdict for verdict in found.values()]

    answers = await asyncio.gather(*map(ask, range(20)))
    assert sorted(answers) == [[MISS] * 3] + [[PENDING] * 3] * 19


async def test_a_step_runs_if_the_leases_can_not_be_read_in_time(runs):
    runs.cache._resolver._leasing._timings = LeaseTimings(timeout=timedelta(milliseconds=1))
    async with runs.database.transaction() as connection:
        await connection.execute("LOCK TABLE lease")
        found = await runs.one("r1", ACQUIRE, A)
    assert (found.verdict, found.lease) == (MISS, None)


async def test_a_gate_that_is_a_hit_gives_back_what_its_run_reserved(runs):
    await runs.finish("r0", "b", parameters={"y": "1"}, name="b")
    planned = await runs.resolve("r1", RESERVE, A, B)
    assert (planned["b"].verdict, planned["b"].lease.run) == (UNKNOWN, "r1")
    at_gate = step("gate", "b", y="1")
    asked = replace(at_gate, step="b", planned_fingerprint=planned["b"].planned_fingerprint)
    assert (await runs.one("r1", ACQUIRE, asked)).verdict is HIT
    assert (await runs.resolve("r2", RESERVE, A, B))["b"].verdict is UNKNOWN
