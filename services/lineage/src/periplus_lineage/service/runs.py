"""Runs: show one, list many, follow one until it has ended."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from periplus_common.errors import NotFound, Unavailable
from periplus_lineage.domain.page import Pages
from periplus_lineage.domain.run import Recorded, Run, RunPhase, Step, in_order, unfolded
from periplus_lineage.service.ports import Notices, Runs

_PAGE = 50
_GRACE = 2.0  # seconds that events of steps may come after the end of their run
_PATIENCE = 5.0  # seconds after which a follower looks although nobody rang
_BREATH = 0.02  # seconds that changes are gathered before they are told


@dataclass(frozen=True)
class News:
    """A run as it is now, and its steps that changed."""

    run: Run
    steps: tuple[Step, ...]


class RunQueries:
    """Answers questions about runs."""

    def __init__(self, runs: Runs, notices: Notices, pages: Pages) -> None:
        self._runs = runs
        self._notices = notices
        self._pages = pages

    async def get(self, project: str, run: str) -> Recorded:
        """A run with its steps. Raises `NotFound`."""
        found = await self._runs.get(project, run)
        if found is None:
            raise unknown(run)
        return found

    async def list(
        self, project: str, pipeline: str, phase: RunPhase, size: int, token: str
    ) -> tuple[Sequence[Run], str]:
        """A page of runs, newest first, and the token of the next. Raises `Invalid` for a token of another list."""
        question = ("runs", project, pipeline, int(phase))
        before = None
        if token:
            at, run = self._pages.place(question, token)
            before = (datetime.fromisoformat(str(at)), str(run))
        size = size or _PAGE
        found = await self._runs.list(project, pipeline, phase, before, size + 1)
        page = found[:size]
        more = len(found) > size
        return page, self._pages.token(question, (page[-1].at.isoformat(), page[-1].id)) if more else ""

    async def follow(self, project: str, run: str) -> AsyncIterator[News]:
        """A run as it is, then each change, until it has ended. Waits for a run that is not known yet.

        Raises `Unavailable` where the process is about to end before the run is.
        """
        told: Run | None = None
        steps: dict[str, Step] = {}
        moment: str | None = None
        end: float | None = None
        clock = asyncio.get_running_loop().time
        with self._notices.following(project, run) as rung:
            while True:
                rung.clear()
                change = await self._runs.changed(project, run, moment)
                if change:
                    moment = change.moment
                    fresh = [step for step in change.steps if steps.get(step.path) != step]
                    steps |= {step.path: step for step in fresh}
                    if fresh or change.run != told:
                        told = change.run
                        changed = {step.path for step in fresh}
                        whole = unfolded(in_order(steps.values()))
                        yield News(told, tuple(step for step in whole if step.path in changed))
                    if told.phase.final:
                        end = end or clock() + _GRACE
                        if Recorded(told, tuple(steps.values())).settled or clock() >= end:
                            return
                await _rung(rung, _PATIENCE if end is None else end - clock())
                if self._notices.over:
                    raise Unavailable("this process is about to end; call again", reason="STOPPING")
                await asyncio.sleep(_BREATH)


async def _rung(alarm: asyncio.Event, patience: float) -> None:
    try:
        await asyncio.wait_for(alarm.wait(), max(patience, 0))
    except TimeoutError:
        return


def unknown(run: str, field: str = "run") -> NotFound:
    """No event of this run has come."""
    return NotFound(
        f"nothing is known of the run {run!r} (yet)", field=field, reason="RUN_UNKNOWN", fix="periplus runs"
    )
