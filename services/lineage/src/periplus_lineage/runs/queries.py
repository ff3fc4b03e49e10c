"""Queries about runs: get one, list many, watch one until it finishes, compare two."""

import asyncio
from asyncio import Event
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from periplus_common.errors import NotFound, Refused, Unavailable
from periplus_lineage.page_tokens import PageTokens
from periplus_lineage.runs.diff import ComparedRun, Difference, differences
from periplus_lineage.runs.model import (
    Run,
    RunChange,
    RunWithSteps,
    SnapshotSummary,
    Step,
    in_plan_order,
    without_placeholders,
)
from periplus_lineage.runs.reproduction import GradedReproduction, grade
from periplus_model.steps import RunPhase

DEFAULT_PAGE_SIZE = 50


class RunStore(Protocol):
    """The stored runs."""

    async def get(self, project: str, run: str) -> RunWithSteps | None:
        """A run with its steps; None if no event of it was received."""

    async def changed_since(self, project: str, run: str, version: str | None) -> RunChange | None:
        """A run and its steps that changed after a version; without one, all of them."""

    async def list(
        self, project: str, pipeline: str, phase: RunPhase, after: tuple[datetime, str] | None, limit: int
    ) -> Sequence[Run]:
        """The newest runs that follow a position in the list, without their steps."""

    async def documents(self, project: str, digests: Collection[str]) -> dict[str, str]:
        """Documents of templates by digest."""

    async def snapshots(self, project: str, ids: Collection[str]) -> dict[str, SnapshotSummary]:
        """Snapshots by id."""


class RunNotifications(Protocol):
    """Notifications that the rows of a run changed."""

    is_stopping: bool
    """Whether the process is about to end, so that no more notifications will be sent."""

    def subscribe(self, project: str, run: str) -> AbstractContextManager[Event]:
        """An event that is set whenever the run may have changed."""


@dataclass(frozen=True)
class WatchTimings:
    """Delays of WatchRun, in seconds."""

    late_events_seconds: float = 10.0
    """How long to wait for events of steps that are received after the run's RunFinished."""
    poll_seconds: float = 5.0
    """When to query without a notification, as a notification may be lost."""
    coalesce_seconds: float = 0.02
    """How long to collect changes before they are sent."""


@dataclass(frozen=True)
class WatchUpdate:
    """The current state of a run, and its steps that changed."""

    run: Run
    steps: tuple[Step, ...]


class RunQueries:
    """Answers queries about runs."""

    def __init__(
        self,
        store: RunStore,
        notifications: RunNotifications,
        page_tokens: PageTokens,
        timings: WatchTimings = WatchTimings(),
    ) -> None:
        self._store = store
        self._notifications = notifications
        self._page_tokens = page_tokens
        self._timings = timings

    async def get(self, project: str, run: str) -> RunWithSteps:
        """A run with its steps. Raises `NotFound`."""
        return await self._get(project, run, "run")

    async def list(
        self, project: str, pipeline: str, phase: RunPhase, page_size: int, page_token: str
    ) -> tuple[Sequence[Run], str]:
        """A page of runs, newest first, and the token of the next page. Raises `Invalid` for a token of another list."""
        query = ("runs", project, pipeline, int(phase))
        after = None
        if page_token:
            created_at, run = self._page_tokens.read(query, page_token)
            after = (datetime.fromisoformat(str(created_at)), str(run))
        page_size = page_size or DEFAULT_PAGE_SIZE
        found = await self._store.list(project, pipeline, phase, after, page_size + 1)
        page = found[:page_size]
        if len(found) <= page_size:
            return page, ""
        return page, self._page_tokens.issue(query, (page[-1].created_at.isoformat(), page[-1].id))

    async def watch(self, project: str, run: str, wait: timedelta) -> AsyncIterator[WatchUpdate]:
        """The run's current state, then each change until it finishes.

        Raises `NotFound` if no event of the run is received in the time `wait`, `Unavailable` if the process is about to end before the run finishes.
        """
        timings = self._timings
        sent: Run | None = None
        steps: dict[str, Step] = {}
        version: str | None = None
        deadline: float | None = None  # once the run has finished
        clock = asyncio.get_running_loop().time
        first_event_by = clock() + wait.total_seconds()
        with self._notifications.subscribe(project, run) as notification:
            while True:
                notification.clear()
                change = await self._store.changed_since(project, run, version)
                if change:
                    version = change.version
                    # The store may return a step again that did not change.
                    changed = {step.path: step for step in change.steps if steps.get(step.path) != step}
                    steps |= changed
                    if changed or change.run != sent:
                        sent = change.run
                        visible = without_placeholders(in_plan_order(steps.values()))
                        yield WatchUpdate(sent, tuple(step for step in visible if step.path in changed))
                    if sent.phase.is_final:
                        deadline = deadline or clock() + timings.late_events_seconds
                        if sent.is_complete or clock() >= deadline:
                            return
                elif sent is None and clock() >= first_event_by:
                    raise _unknown(run, "run")
                until = deadline if sent else first_event_by
                seconds = (
                    timings.poll_seconds if until is None else min(timings.poll_seconds, until - clock())
                )
                await _wait(notification, seconds)
                if self._notifications.is_stopping:
                    raise Unavailable("the server is shutting down; call again", reason="STOPPING")
                await asyncio.sleep(timings.coalesce_seconds)

    async def diff(self, project: str, old: str, new: str) -> Sequence[Difference]:
        """The differences of two runs, causes before effects. Raises `NotFound`."""
        old_run = await self._get(project, old, "old")
        new_run = await self._get(project, new, "new")
        digests = {step.template_digest for step in (*old_run.steps, *new_run.steps)} - {""}
        documents = await self._store.documents(project, digests)
        snapshots = await self._store.snapshots(project, {old_run.run.snapshot, new_run.run.snapshot})

        def compared(recorded: RunWithSteps) -> ComparedRun:
            by_path = {
                step.path: documents[step.template_digest]
                for step in recorded.steps
                if step.template_digest in documents
            }
            return ComparedRun(recorded, by_path, snapshots.get(recorded.run.snapshot))

        return differences(compared(old_run), compared(new_run))

    async def grade_reproduction(self, project: str, run: str) -> GradedReproduction:
        """How the outputs of a reproduction compare with those of the run that it reproduces. Raises `NotFound`, `Refused`."""
        reproduction = await self._get(project, run, "run")
        original = reproduction.run.reproduces
        if not original:
            raise Refused(
                f"the run {run} reproduces no other run",
                reason="NOT_A_REPRODUCTION",
                fix=f"periplus reproduce {run}",
            )
        return grade(await self._get(project, original, "run"), reproduction)

    async def _get(self, project: str, run: str, field: str) -> RunWithSteps:
        found = await self._store.get(project, run)
        if found is None:
            raise _unknown(run, field)
        return found


def _unknown(run: str, field: str) -> NotFound:
    return NotFound(
        f"no event of the run {run!r} was received (yet)",
        field=field,
        reason="RUN_UNKNOWN",
        fix="periplus runs",
    )


async def _wait(notification: Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(max(seconds, 0)):
            await notification.wait()
    except TimeoutError:
        return
