"""Whether work is done twice: clients submit overlapping plans to one cache, and some stop or die while they hold leases.

    python bench/single_flight.py [clients] [submissions] [seed]

Each submission is a chain of three steps out of a few; a client that gets a step's lease makes it, which counts itself. One of
twenty holders stops until its lease has been taken over, and reports then; one of twenty never reports. The executions must be the
distinct fingerprints and the leases that lapsed, exactly, and no result of a stopped holder may be recorded: else the exit code is 1.
The cache runs in this process, on a real Postgres; a lease lasts two seconds.
"""

import asyncio
import json
import random
import sys
import tempfile
import time
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from periplus_cache.lease.unit import LeaseTimings
from periplus_cache.record.finished import FinishedStep
from periplus_cache.resolve.request import ResolveRequest
from periplus_cache.service import Cache
from periplus_cache.store.leases import PostgresLeases
from periplus_cache.store.postgres import PostgresStore
from periplus_cache.store.waits import EndedWaits
from periplus_common import postgres
from periplus_local.stack.testing import database, servers
from periplus_model.queries import Lease, LeaseMode, LeaseState, Literal, StepQuery, StepVerdict
from periplus_model.steps import Inputs, Outputs, StepPhase, StepTemplate, Verdict

PROJECT = "bench"
STEPS_OF_A_PLAN = 3
TIMINGS = LeaseTimings(ttl=timedelta(seconds=2), grace=timedelta(seconds=1), timeout=timedelta(seconds=60))
STEP_SECONDS = 0.02
TEMPLATE = StepTemplate("step", json.dumps({"does": "count"}))


class NoObjects:
    """The steps have no artifacts."""

    def absolute(self, ref):
        return ref

    async def versions(self, _):
        return {}

    async def changed(self, _):
        return {}


@dataclass
class Flight:
    """All clients of one measurement, and what they count. `held` are the leases that are renewed."""

    cache: Cache
    waits: EndedWaits
    random: random.Random
    executions: list[str] = field(default_factory=list)
    lapsed: list[int] = field(default_factory=list)
    made_by: dict[str, str] = field(default_factory=dict)
    stopped: set[tuple[str, str]] = field(default_factory=set)
    held: set[int] = field(default_factory=set)
    waiting: dict[str, asyncio.Event] = field(default_factory=dict)
    waited: list[float] = field(default_factory=list)
    late: list[asyncio.Task[None]] = field(default_factory=list)
    is_over: bool = False

    async def ask(self, run: str, step: str) -> StepVerdict:
        mode = LeaseMode.ACQUIRE if run else LeaseMode.NONE
        query = StepQuery(step, "t", {"x": (Literal(step),)}, lease=mode)
        request = ResolveRequest(PROJECT, {"t": TEMPLATE}, (query,), run=run)
        (verdict,) = await self.cache.resolve(request)
        return verdict

    async def record(self, run: str, step: str, lease: Lease | None) -> None:
        now = datetime.now(UTC)
        finished = FinishedStep(
            PROJECT, run, step, TEMPLATE, StepPhase.SUCCEEDED, Verdict.MISS, Inputs({"x": step}), Outputs({"y": run}), now, now,
            lease_token=lease.token if lease else 0,
        )  # fmt: skip
        await self.cache.record(finished)

    async def submit(self, run: str, steps: list[str]) -> None:
        for step in steps:
            while True:
                self.waiting[run] = asyncio.Event()
                verdict = await self.ask(run, step)
                if verdict.verdict is Verdict.HIT:
                    self.made_by[step] = verdict.producer_run
                    break
                if verdict.verdict is Verdict.PENDING:
                    started = time.monotonic()
                    await self.waiting[run].wait()
                    self.waited.append(time.monotonic() - started)
                    continue
                if not await self.make(run, step, verdict.lease):
                    return
                break
            del self.waiting[run]

    async def make(self, run: str, step: str, lease: Lease | None) -> bool:
        """Make a step; whether its run goes on."""
        self.executions.append(step)
        fate = 1.0 if self.is_over else self.random.random()
        if lease is not None and fate < 0.1:  # nobody renews the lease
            self.lapsed.append(lease.token)
            self.stopped.add((run, step))
            if fate < 0.05:
                self.late.append(asyncio.create_task(self.report_late(run, step, lease)))
            return False
        if lease is not None:
            self.held.add(lease.token)
        await asyncio.sleep(STEP_SECONDS)
        await self.record(run, step, lease)
        if lease is not None:
            self.held.discard(lease.token)
        return True

    async def report_late(self, run: str, step: str, lease: Lease) -> None:
        """What a holder does that was stopped until another had taken its lease over."""
        while (found := await self.ask("", step)).verdict is Verdict.MISS or found.lease == lease:  # noqa: ASYNC110
            await asyncio.sleep(0.2)
        await self.record(run, step, lease)

    async def renew(self) -> None:
        while True:
            states = dict.fromkeys(self.held, LeaseState.STARTED)
            await self.cache.renew_leases(PROJECT, states, list(self.waiting))
            await asyncio.sleep(0.5)

    async def watch(self) -> None:
        async with aclosing(self.waits.watch(PROJECT)) as ended:
            async for runs in ended:
                for run in runs:
                    if run in self.waiting:
                        self.waiting[run].set()

    async def run(self, clients: int, submissions: int, steps: list[str]) -> None:
        numbers = iter(range(submissions))

        async def client() -> None:
            for number in numbers:
                await self.submit(f"run-{number}", self.random.sample(steps, STEPS_OF_A_PLAN))

        async with asyncio.TaskGroup() as background:
            others = [background.create_task(self.renew()), background.create_task(self.watch())]
            await asyncio.gather(*(client() for _ in range(clients)))
            self.is_over = (
                True  # what was left by holders that stopped is made, so that every lapsed lease counts
            )
            for step in steps:
                await self.submit(f"last-{step}", [step])
            await asyncio.gather(*self.late)
            for other in others:
                other.cancel()


async def main(clients: int, submissions: int, seed: int) -> int:
    steps = [f"step-{number}" for number in range(max(STEPS_OF_A_PLAN, submissions // 10))]
    with tempfile.TemporaryDirectory(prefix="periplus-bench-") as directory:
        async with servers(Path(directory)) as running, database(running) as dsn:
            await postgres.migrate(dsn, "periplus_common", "periplus_cache")
            async with postgres.database(dsn) as opened:
                waits = EndedWaits(TIMINGS)
                leases = PostgresLeases(opened, TIMINGS)
                cache = Cache(PostgresStore(opened), NoObjects(), leases=leases, lease_timings=TIMINGS)
                flight = Flight(cache, waits, random.Random(seed))
                async with waits.listening(dsn):
                    started = time.monotonic()
                    await flight.run(clients, submissions, steps)
                    seconds = time.monotonic() - started
                    recorded = {step: (await flight.ask("", step)).producer_run for step in steps}
    distinct, lapsed = len(set(flight.executions)), len(flight.lapsed)
    stale = [step for step, run in recorded.items() if (run, step) in flight.stopped]
    print(f"{clients} clients, {submissions} submissions of {STEPS_OF_A_PLAN} steps in {seconds:.1f} s")
    print(f"executions                {len(flight.executions)}")
    print(f"distinct + lapsed         {distinct} + {lapsed} = {distinct + lapsed}")
    print(f"late results of stopped   {len(flight.late)}, recorded {len(stale)}")
    print(
        f"waits                     {len(flight.waited)}, the longest {max(flight.waited, default=0.0):.2f} s"
    )
    is_exact = len(flight.executions) == distinct + lapsed and not stale and all(recorded.values())
    print("no work was done twice" if is_exact else "WORK WAS DONE TWICE, or a stale result was recorded")
    return 0 if is_exact else 1


if __name__ == "__main__":
    given = [int(argument) for argument in sys.argv[1:]]
    sys.exit(asyncio.run(main(*(given + [64, 10_000, 1][len(given) :]))))
