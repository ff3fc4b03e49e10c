"""Leases in the verdicts of a request: which steps wait for another run, and which leases the run gets."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from periplus_cache.lease.unit import LeaseOutcome, Leases, LeaseTimings, LeaseUnit
from periplus_common.errors import Unavailable
from periplus_model.queries import Lease, LeaseMode, StepQuery, StepVerdict
from periplus_model.steps import Verdict

log = logging.getLogger(__name__)


class LookUp(Protocol):
    """The verdicts of a request's steps, and those of them that are no hits."""

    @property
    def verdicts(self) -> list[StepVerdict]:
        """In the order of the steps."""

    @property
    def units(self) -> Mapping[str, LeaseUnit]:
        """By the id of the verdict, which is that of a step or of an item."""


class Leasing:
    """Completes verdicts by leases. Without them, in time, the steps run: a second execution is no error."""

    def __init__(self, leases: Leases, timings: LeaseTimings) -> None:
        self._leases, self._timings = leases, timings

    async def complete(
        self,
        project: str,
        run: str,
        steps: Sequence[StepQuery],
        found: LookUp,
        look_up: Callable[[], Awaitable[LookUp]],
    ) -> list[StepVerdict]:
        """The verdicts with leases. `look_up` looks up all steps again."""
        is_asking = bool(run) and any(step.lease is not LeaseMode.NONE for step in steps)
        not_needed = _not_needed(steps, found) if is_asking else []
        if not found.units and not not_needed:
            return found.verdicts
        try:
            async with asyncio.timeout(self._timings.timeout.total_seconds()):
                if not is_asking:
                    return _with_leases(
                        found, await self._leases.find(project, run, list(found.units.values()))
                    )
                return await self._take(project, run, steps, found, not_needed, look_up)
        except (Unavailable, TimeoutError) as error:
            log.warning("run %s of project %s has no leases: %s", run, project, str(error) or "too slow")
            return found.verdicts

    async def _take(
        self,
        project: str,
        run: str,
        steps: Sequence[StepQuery],
        found: LookUp,
        not_needed: list[str],
        look_up: Callable[[], Awaitable[LookUp]],
    ) -> list[StepVerdict]:
        outcomes: Mapping[str, LeaseOutcome] = {}
        if found.units:
            outcomes = await self._leases.take(project, run, list(found.units.values()))
        held = {id_ for id_, outcome in outcomes.items() if outcome.held is not None}
        if held:
            # Another run may have recorded a result after the first look, before its lease ended. From here on no other run makes these steps.
            before, found = found, await look_up()
            not_needed += [before.units[id_].step for id_ in held if id_ not in found.units]
            not_needed += _not_needed(steps, found)
        if not_needed:
            await self._leases.release(project, run, sorted(set(not_needed)))
        return _with_leases(found, outcomes)


def _not_needed(steps: Sequence[StepQuery], found: LookUp) -> list[str]:
    """The steps of gates that turned out to be hits: the run may hold leases of them since its submission."""
    return [
        step.path
        for step, verdict in zip(steps, found.verdicts, strict=True)
        if verdict.verdict is Verdict.HIT and (step.lease is LeaseMode.ACQUIRE or step.planned_fingerprint)
    ]


def _with_leases(found: LookUp, outcomes: Mapping[str, LeaseOutcome]) -> list[StepVerdict]:
    return [_with_lease(verdict, found.units, outcomes) for verdict in found.verdicts]


def _with_lease(
    verdict: StepVerdict, units: Mapping[str, LeaseUnit], outcomes: Mapping[str, LeaseOutcome]
) -> StepVerdict:
    if not verdict.items:
        return _decided(verdict, outcomes.get(verdict.id)) if verdict.id in units else verdict
    of_items = {item.id: outcomes.get(item.id) for item in verdict.items if item.id in units}
    if any(outcome is not None and outcome.deadlocked is not None for outcome in of_items.values()):
        # All items wait for one answer: none of them may wait.
        of_items = {
            id_: LeaseOutcome(deadlocked=outcome.awaited) if outcome and outcome.awaited else outcome
            for id_, outcome in of_items.items()
        }
    items = tuple(_decided(item, of_items.get(item.id)) for item in verdict.items)
    waiting = next((item for item in items if item.verdict is Verdict.PENDING), None)
    if waiting is None:
        return replace(verdict, items=items)
    return replace(verdict, verdict=Verdict.PENDING, reason=waiting.reason, items=items, lease=waiting.lease)


def _decided(verdict: StepVerdict, outcome: LeaseOutcome | None) -> StepVerdict:
    if outcome is None:
        return verdict
    if outcome.awaited is not None:
        reason = f"waiting for {_named(outcome.awaited)}"
        return replace(verdict, verdict=Verdict.PENDING, reason=reason, lease=outcome.awaited)
    if outcome.deadlocked is not None:
        reason = f"{_named(outcome.deadlocked)} does the same, but waits for this run"
        return replace(verdict, verdict=Verdict.MISS, reason=reason)
    return replace(verdict, lease=outcome.held)


def _named(lease: Lease) -> str:
    return f"run {lease.run}, step {lease.step}, since {lease.acquired_at:%Y-%m-%d %H:%M:%S} UTC"
