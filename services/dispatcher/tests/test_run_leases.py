"""Which leases a followed run holds, how far their steps are, and how its keeper renews them and wakes its gates."""

import asyncio
from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from datetime import UTC, datetime, timedelta

from periplus_common.errors import Unavailable
from periplus_dispatcher.domain import Delay, GateAnswer, Run, RunState, StepStatus
from periplus_dispatcher.follow.leases import LeaseKeeper, RunLeases, lease_states, token_of, tokens_of
from periplus_model.queries import Lease, LeaseState, StepVerdict
from periplus_model.steps import RunPhase, StepPhase, Verdict

NOW = datetime.now(UTC)


def run(**leases: int) -> Run:
    return Run(
        "default", "r", "q", "", "p", RunPhase.RUNNING, "{}", RunState({}, leases=leases), "", None, NOW
    )


def verdict(kind: Verdict, token: int, step: str, *items: StepVerdict) -> StepVerdict:
    return StepVerdict(step, kind, items=items, lease=Lease(token, "other", step, NOW))


def step(path: str, phase: StepPhase, token: int = 0) -> StepStatus:
    return StepStatus(path, phase, "t", lease_token=token)


def test_a_run_holds_the_leases_of_its_submission_and_those_that_its_gates_got_and_none_that_it_waits_for() -> (
    None
):
    got = verdict(Verdict.MISS, 2, "b")
    items = verdict(Verdict.UNKNOWN, 3, "f", verdict(Verdict.MISS, 4, "f(0:x)"))
    answers = {
        "gate": GateAnswer({}, got),
        "loop": GateAnswer({}, items, members={"m": GateAnswer({}, verdict(Verdict.MISS, 5, "m"))}),
        "waits": GateAnswer({}, verdict(Verdict.PENDING, 9, "w")),
    }
    assert tokens_of(run(a=1, b=1), answers) == {"a": 1, "b": 2, "f": 3, "f(0:x)": 4, "m": 5}


def test_an_item_of_a_fan_out_runs_under_its_own_lease_or_that_of_the_fan_out() -> None:
    tokens = {"f": 3, "f(0:x)": 4}
    running = [step(path, StepPhase.RUNNING) for path in ("f(0:x)", "f(1:y)", "other")]
    assert [token_of(each, tokens) for each in running] == [4, 3, 0]
    assert token_of(step("f(0:x)", StepPhase.CACHED), tokens) == 0


def test_leases_of_steps_that_have_finished_are_not_renewed_and_the_others_say_how_far_their_steps_are() -> (
    None
):
    tokens = {"waits": 1, "runs": 2, "done": 3, "f": 4, "g": 5}
    steps = [
        step("runs", StepPhase.RUNNING),
        step("done", StepPhase.SUCCEEDED),
        step("f(0:x)", StepPhase.SUCCEEDED),
        step("g(0:x)", StepPhase.SUCCEEDED),
    ]
    assert lease_states(tokens, steps, {"g"}) == {
        1: LeaseState.RESERVED,
        2: LeaseState.STARTED,
        4: LeaseState.STARTED,
        5: LeaseState.ENDED,
    }


class Cache:
    """Leases in memory. The first `failures` calls of each kind fail."""

    def __init__(self, lost: Iterable[int] = (), failures: int = 0) -> None:
        self.lost, self.failures = list(lost), {"renew": failures, "watch": failures}
        self.renewed: list[tuple[dict[int, LeaseState], set[str]]] = []
        self.ended: asyncio.Queue[list[str]] = asyncio.Queue()
        self.watched = asyncio.Event()

    def _fail(self, call: str) -> None:
        self.failures[call] -= 1
        if self.failures[call] >= 0:
            raise Unavailable("the cache is away")

    async def renew_leases(
        self, project: str, states: Mapping[int, LeaseState], waiting_runs: Collection[str]
    ) -> list[int]:
        self._fail("renew")
        self.renewed.append((dict(states), set(waiting_runs)))
        return self.lost

    async def watch_waits(self, project: str) -> AsyncIterator[list[str]]:
        self._fail("watch")
        self.watched.set()
        while True:
            yield await self.ended.get()


async def kept(
    cache: Cache, leases: RunLeases, asked: asyncio.Queue[str], until: asyncio.Event | None
) -> None:
    """Keep the leases of the run `r` until the event, or until the run is asked again."""
    keeper = LeaseKeeper(cache, timedelta(milliseconds=10), lambda: [(run(), leases)], asked.put)
    keeping = asyncio.create_task(keeper.keep())
    try:
        async with asyncio.timeout(60):
            await (until.wait() if until else asked.get())
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)


def waiting() -> RunLeases:
    return RunLeases({1: LeaseState.STARTED}, {"gate": Delay("b", "t", "gate", "waiting for run r2")})


async def test_a_run_is_asked_again_when_its_wait_has_ended_and_a_lease_that_was_lost_is_not_renewed() -> (
    None
):
    cache, leases = Cache(lost=[1]), waiting()
    cache.ended.put_nowait(["r"])
    await kept(cache, leases, asyncio.Queue(), None)
    assert cache.renewed[0] == ({1: LeaseState.STARTED}, {"r"})
    assert leases.held == {}


async def test_a_cache_that_was_away_is_asked_again_for_every_wait_as_ends_may_have_been_missed() -> None:
    cache = Cache(failures=2)
    await kept(cache, waiting(), asyncio.Queue(), None)  # no end is ever sent
    await kept(cache, waiting(), asyncio.Queue(), cache.watched)
    assert cache.renewed


async def test_nothing_is_asked_for_runs_without_leases_and_waits() -> None:
    cache = Cache()
    keeper = LeaseKeeper(cache, timedelta(0), lambda: [(run(), RunLeases())], asyncio.Queue[str]().put)
    keeping = asyncio.create_task(keeper.keep())
    for _ in range(100):
        await asyncio.sleep(0)
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)
    assert (cache.renewed, cache.watched.is_set()) == ([], False)


def test_gates_that_are_woken_ask_again() -> None:
    leases = waiting()
    leases.wake()
    assert (leases.waiting, leases.wakes) == ({}, 1)
