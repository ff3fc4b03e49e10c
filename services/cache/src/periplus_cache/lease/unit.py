"""What a lease is of: a step, or an item of a fan-out, that is no hit; and what became of its request for one."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from periplus_model.queries import Lease, LeaseMode, LeaseState


@dataclass(frozen=True, slots=True)
class LeaseTimings:
    """`ttl`: how long a lease and a wait last that are not renewed. `grace`: how long one lasts whose step or run has ended, so that
    a result on its way is recorded before others make it. `sweep`: how often expired leases that others wait for are looked for.
    `timeout`: how long an answer may be delayed by leases; then it has none.
    """

    ttl: timedelta = timedelta(seconds=15)
    grace: timedelta = timedelta(seconds=10)
    sweep: timedelta = timedelta(seconds=1)
    timeout: timedelta = timedelta(seconds=2)


@dataclass(frozen=True, slots=True)
class LeaseUnit:
    """A step that is no hit, by the `id` of its verdict.

    `fingerprints` are those that it is made under: the one of its inputs if they are known, and the planned one if it has
    references. It waits also where another run holds one of `others`: that of its whole fan-out. `may_hold` is whether its result will be
    recorded. Of the items of one `fan_out`, which start together, all get leases or none does.
    """

    id: str
    step: str
    fingerprints: tuple[str, ...]
    others: tuple[str, ...] = ()
    mode: LeaseMode = LeaseMode.NONE
    may_hold: bool = True
    fan_out: str = ""


@dataclass(frozen=True, slots=True)
class LeaseOutcome:
    """Exactly one: the lease that a unit holds; the one that it waits for; or the one of a run that waits for this run."""

    held: Lease | None = None
    awaited: Lease | None = None
    deadlocked: Lease | None = None


class Leases(Protocol):
    """The leases. Every method raises `Unavailable` if Postgres can not be reached."""

    async def find(self, project: str, run: str, units: Sequence[LeaseUnit]) -> Mapping[str, LeaseOutcome]:
        """The leases of other runs that units would wait for, by the unit's id."""

    async def take(self, project: str, run: str, units: Sequence[LeaseUnit]) -> Mapping[str, LeaseOutcome]:
        """Give a run the leases of units, in one transaction, and let those wait that ACQUIRE one and do not get it."""

    async def release(self, project: str, run: str, steps: Collection[str]) -> None:
        """End the leases and the waits of steps that need not be made."""

    async def renew(
        self, project: str, states: Mapping[int, LeaseState], waiting_runs: Collection[str]
    ) -> list[int]:
        """Renew leases by token, and the waits of runs. Gives the tokens that are not current any more."""

    async def end_run(self, project: str, run: str) -> None:
        """Let the leases of a finished run end after the grace, and end its waits."""
