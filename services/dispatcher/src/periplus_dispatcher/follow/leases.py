"""Leases of the runs that are followed: renewed while their steps are made, and whose end the waiting gates learn of."""

import asyncio
import logging
from collections import defaultdict
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Protocol

from periplus_common.errors import PeriplusError
from periplus_dispatcher.domain import Delay, GateAnswer, Run, StepStatus
from periplus_model.queries import LeaseState, StepVerdict
from periplus_model.steps import StepPhase, Verdict

log = logging.getLogger(__name__)


class Leases(Protocol):
    """The leases of the cache service."""

    async def renew_leases(
        self, project: str, states: Mapping[int, LeaseState], waiting_runs: Collection[str]
    ) -> list[int]:
        """Renew leases by token, and the waits of runs. Gives the tokens that are not current any more. Raises `Unavailable`."""

    def watch_waits(self, project: str) -> AsyncIterator[list[str]]:
        """Runs of a project of which a wait has ended. Raises `Unavailable`."""


@dataclass
class RunLeases:
    """Of a followed run: the leases that it holds, and the gates that wait for those of others, by node, with what they wait for.

    `wakes` counts the ends of waits, so that one that comes while the cache is asked is not missed.
    """

    held: dict[int, LeaseState] = field(default_factory=dict)
    waiting: dict[str, Delay] = field(default_factory=dict)
    wakes: int = 0

    def wake(self) -> None:
        """Let the gates that wait ask again."""
        self.wakes += 1
        self.waiting.clear()


def tokens_of(run: Run, answers: Mapping[str, GateAnswer]) -> dict[str, int]:
    """The tokens of the leases that a run got at its submission and at its gates, by the path of the step that holds each."""
    found = dict(run.state.leases)
    for answer in answers.values():
        for verdict in _verdicts(answer):
            if verdict.lease is not None and verdict.verdict is not Verdict.PENDING:
                found[verdict.lease.step] = verdict.lease.token
    return found


def _verdicts(answer: GateAnswer) -> Iterator[StepVerdict]:
    yield answer.verdict
    yield from answer.verdict.items
    for member in answer.members.values():
        yield from _verdicts(member)


def token_of(step: StepStatus, tokens: Mapping[str, int]) -> int:
    """The token of the lease under which a step ran, if it is its own or that of its fan-out; 0 without one."""
    if step.phase is StepPhase.CACHED:
        return 0
    return tokens.get(step.path) or tokens.get(_fan_out(step.path), 0)


def _fan_out(path: str) -> str:
    return path.rpartition("(")[0] if path.endswith(")") else path


def lease_states(
    tokens: Mapping[str, int], steps: Sequence[StepStatus], ended: Collection[str]
) -> dict[int, LeaseState]:
    """How far the steps of leases are, by token; without those that have finished, whose leases the cache ends.

    `ended` are the paths of the fan-outs of which all items have ended.
    """
    final = {step.path for step in steps if step.phase.is_final}
    started = {path for step in steps for path in (step.path, _fan_out(step.path))}
    return {
        token: LeaseState.ENDED
        if path in ended
        else LeaseState.STARTED
        if path in started
        else LeaseState.RESERVED
        for path, token in tokens.items()
        if path not in final
    }


class LeaseKeeper:
    """Renews the leases and waits of runs, and asks for them again when a wait has ended.

    `runs` gives those that are followed. `ask_again` lets the gates of a run that wait ask again.
    """

    def __init__(
        self,
        leases: Leases,
        interval: timedelta,
        runs: Callable[[], Iterable[tuple[Run, RunLeases]]],
        ask_again: Callable[[str], Awaitable[None]],
    ) -> None:
        self._leases, self._runs, self._ask_again = leases, runs, ask_again
        self._interval = interval.total_seconds()
        self._watches: dict[str, asyncio.Task[None]] = {}
        self._changed = asyncio.Event()

    def changed(self) -> None:
        """A run has begun to wait: the ends of waits of its project are watched from now on."""
        self._changed.set()

    async def keep(self) -> None:
        """Keep leases until it is cancelled."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                await self._renew()
                self._watch(tasks)
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._interval):
                        while True:
                            await self._changed.wait()
                            self._changed.clear()
                            self._watch(tasks)

    async def _renew(self) -> None:
        states: dict[str, dict[int, LeaseState]] = defaultdict(dict)
        waiting: dict[str, set[str]] = defaultdict(set)
        for run, leases in self._runs():
            if leases.held:
                states[run.project] |= leases.held
            if leases.waiting:
                waiting[run.project].add(run.id)
        for project in states.keys() | waiting.keys():
            try:
                lost = set(await self._leases.renew_leases(project, states[project], waiting[project]))
            except PeriplusError as error:
                log.warning("the leases of project %s are renewed later: %s", project, error)
                continue
            for run, leases in self._runs():
                for token in lost & leases.held.keys():
                    del leases.held[token]
                    log.warning("%s: its lease %s has ended, and another run may do the same", run.id, token)

    def _watch(self, tasks: asyncio.TaskGroup) -> None:
        wanted = {run.project for run, leases in self._runs() if leases.waiting}
        for project in self._watches.keys() - wanted:
            self._watches.pop(project).cancel()
        for project in wanted - self._watches.keys():
            self._watches[project] = tasks.create_task(self._watch_project(project))

    async def _watch_project(self, project: str) -> None:
        """Ask again for each run whose wait has ended; for all that wait where ends may have been missed."""
        while True:
            try:
                async for runs in self._leases.watch_waits(project):
                    for run in runs:
                        await self._ask_again(run)
            except PeriplusError as error:
                log.warning("the waits of project %s are watched again: %s", project, error)
            await asyncio.sleep(self._interval)
            for run in [run.id for run, leases in self._runs() if run.project == project and leases.waiting]:
                await self._ask_again(run)
