"""What becomes of runs once Argo has them: steps told as they happen, gates answered, ends noted, crashes survived."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from periplus_common.errors import Invalid, NotFound, PeriplusError, Unavailable
from periplus_dispatcher.asked import answer_of, query_of
from periplus_dispatcher.domain import (
    Outputs,
    Phase,
    Resolved,
    Verdict,
)
from periplus_dispatcher.nodes import Store
from periplus_dispatcher.observe import Gate, View
from periplus_dispatcher.ports import Argo, Cache, Runs
from periplus_dispatcher.record import Answer, Run
from periplus_dispatcher.service import Dispatcher

log = logging.getLogger(__name__)

Json = dict[str, Any]
RETRY = 2.0  # seconds between tries where something is away
PATIENCE = 30.0  # seconds between looks at all open runs


@dataclass
class Followed:
    """A run that is followed: the newest state of its Workflow, and who looks at it."""

    run: Run
    newest: Json | None = None
    look: asyncio.Task[None] | None = None
    told: set[tuple[str, Phase]] = field(default_factory=set)
    answered: set[str] = field(default_factory=set)


class Follower:
    """Watches Argo for as long as it runs. What it does is safe to do again, and to do by several."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        runs: Runs,
        argo: Argo,
        cache: Cache,
        store: Store,
        patience: float = PATIENCE,
    ) -> None:
        self._dispatcher = dispatcher
        self._runs = runs
        self._argo = argo
        self._cache = cache
        self._store = store
        self._patience = patience
        self._followed: dict[str, Followed] = {}

    async def follow(self) -> None:
        """Take up what was left open, then follow what happens, for ever."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._look_after(tasks))
            while True:
                try:
                    async for workflow in self._argo.watch():
                        if workflow is None:
                            tasks.create_task(self._catch_up(tasks))
                        else:
                            await self._arrived(tasks, workflow)
                except PeriplusError as error:
                    log.warning("the watch ended, and begins again: %s", error)
                    await asyncio.sleep(RETRY)

    async def _look_after(self, tasks: asyncio.TaskGroup) -> None:
        """See to open runs now and then: what failed once is tried again, and what was missed is seen."""
        while True:
            await asyncio.sleep(self._patience)
            await self._catch_up(tasks)

    async def _catch_up(self, tasks: asyncio.TaskGroup) -> None:
        """See to every open run: launch what Argo never got, look at what it may have done unseen."""
        try:
            for name in await self._runs.open():
                run = await self._runs.get(name)  # before Argo is asked: what it was given since is not lost
                workflow = await self._argo.get(name)
                if workflow is not None:
                    await self._arrived(tasks, workflow)
                elif run is not None and run.phase is Phase.PENDING and run.cancelled:
                    await self._end(run, Phase.CANCELLED, "stopped before it began")
                elif run is not None and run.phase is Phase.PENDING:
                    await self._relaunch(run)
                elif run is not None and not run.phase.final:
                    await self._end(run, Phase.ERROR, "Argo has this workflow no longer")
        except PeriplusError as error:
            log.warning("open runs are seen to later: %s", error)

    async def _relaunch(self, run: Run) -> None:
        try:
            await self._dispatcher.launch(run)
        except Invalid as error:
            log.warning("Argo refused %s: %s", run.id, error)

    async def _end(self, run: Run, phase: Phase, message: str) -> None:
        await self._runs.finish(run, [], phase, message, Outputs(), datetime.now(UTC))

    async def _arrived(self, tasks: asyncio.TaskGroup, workflow: Json) -> None:
        """Note the newest state, and look at it once nobody looks at an older one."""
        name = workflow["metadata"]["name"]
        followed = self._followed.get(name)
        if followed is None:
            run = await self._runs.get(name)
            if run is not None and run.cancelled:
                await self._stop(run, workflow)
            if run is None or run.phase.final:
                return
            followed = self._followed[name] = Followed(run)
        followed.newest = workflow
        if followed.look is None or followed.look.done():
            followed.look = tasks.create_task(self._look(followed))

    async def _stop(self, run: Run, workflow: Json) -> None:
        """See that a cancelled run ends, though whoever cancelled it died before Argo was told."""
        spec, status = workflow.get("spec") or {}, workflow.get("status") or {}
        if not spec.get("shutdown") and not status.get("finishedAt"):
            await self._argo.stop(run.id, terminate=False, message="stopped by a person")

    async def _look(self, followed: Followed) -> None:
        while (workflow := followed.newest) is not None:
            followed.newest = None
            try:
                if await self._seen(followed, workflow):
                    self._followed.pop(followed.run.id, None)
                    return
            except PeriplusError as error:
                log.warning("%s is looked at again: %s", followed.run.id, error)
                await asyncio.sleep(RETRY)
                followed.newest = followed.newest or workflow
            except Exception:
                # One run that we can not read must not keep us from the others. Its next state may be readable.
                log.exception("%s could not be looked at", followed.run.id)
                await asyncio.sleep(RETRY)

    async def _seen(self, followed: Followed, workflow: Json) -> bool:
        """Do what one state asks for. True: the run is over."""
        run = followed.run
        if run.phase is Phase.PENDING:
            await self._runs.started(run.id)
            run = followed.run = replace(run, phase=Phase.RUNNING)
        told = await self._runs.answers(run.id) if run.record.generated else {}
        view = View(workflow, run.record, told, self._store)
        gates = [gate for gate in view.gates() if gate.node not in followed.answered]
        if gates and not view.phase.final:
            await self._answer(followed, gates, told)
        new = [step for step in view.steps() if (step.path, step.phase) not in followed.told]
        if view.phase.final:
            phase = await self._outcome(run, view.phase)
            at = view.finished_at or datetime.now(UTC)
            await self._runs.finish(run, new, phase, view.message, view.outputs, at)
            return True
        if new:
            await self._runs.tell(run, new)
            followed.told.update((step.path, step.phase) for step in new)
        return False

    async def _outcome(self, run: Run, phase: Phase) -> Phase:
        current = await self._runs.get(run.id)
        stopped = current is not None and current.cancelled and phase is not Phase.SUCCEEDED
        return Phase.CANCELLED if stopped else phase

    async def _answer(self, followed: Followed, gates: Sequence[Gate], known: Mapping[str, Answer]) -> None:
        """Answer all gates that are open together with one question to the cache; keep each answer before it is told."""
        run = followed.run
        new = [gate for gate in gates if gate.node not in known]
        told = dict(known)
        if new:
            told |= await self._asked(run, new)
            await self._runs.answer(run.id, {gate.node: told[gate.node] for gate in new})
            told |= await self._runs.answers(run.id)  # another replica's may have been first
        for gate in gates:
            answer = told[gate.node]
            try:
                await self._argo.supply(run.id, gate.node, answer.parameters, answer.resolved.reason)
            except NotFound as error:
                log.info("%s: the gate of %s is gone: %s", run.id, gate.path, error)
            followed.answered.add(gate.node)

    async def _asked(self, run: Run, gates: Sequence[Gate]) -> dict[str, Answer]:
        templates = {gate.template: run.record.templates[gate.template] for gate in gates}
        try:
            queries = [query_of(run, gate) for gate in gates]
            resolved = await self._cache.resolve(run.project, run.id, templates, queries)
        except (Unavailable, Invalid) as error:
            log.warning("%s: gates open as misses: %s", run.id, error)
            resolved = {}
        missed = Resolved(Verdict.MISS, "the cache was not reached")
        return {gate.node: answer_of(run, gate, resolved.get(gate.node, missed)) for gate in gates}
