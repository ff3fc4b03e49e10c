"""Follow the runs that Argo has: publish what happens to their steps, answer their gates, and store their ends."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial

from periplus_common import telemetry
from periplus_common.errors import Invalid, PeriplusError
from periplus_dispatcher.domain import MANAGED_LABEL, Json, ObservedWorkflow, Run
from periplus_dispatcher.follow import resubmitted
from periplus_dispatcher.follow.answering import GateAnswering
from periplus_dispatcher.follow.config import check_config
from periplus_dispatcher.follow.followed import FollowedRun
from periplus_dispatcher.follow.images import check_images
from periplus_dispatcher.follow.leases import (
    LeaseKeeper,
    Leases,
    RunLeases,
    lease_states,
    token_of,
    tokens_of,
)
from periplus_dispatcher.follow.nodes import ArtifactRepository
from periplus_dispatcher.follow.observe import WorkflowStatus
from periplus_dispatcher.observed.observer import Observer
from periplus_dispatcher.observed.workflow import run_id
from periplus_dispatcher.ports import Argo, Cache, ConfigObjects, Pods, Runs
from periplus_model.steps import Outputs, RunPhase

log = logging.getLogger(__name__)

UNOBSERVED = "its Workflow was deleted before its end was observed, and Argo's archive does not have it"

Launch = Callable[[Run], Awaitable[Run]]


@dataclass(frozen=True)
class FollowerTimings:
    """How often all open runs are checked, how long to wait after an error, and the least time between two starts of the
    event stream. At most `max_checks` runs are checked at the same time. Leases are renewed every `renew_interval`.
    """

    poll_interval: timedelta = timedelta(seconds=30)
    retry_delay: timedelta = timedelta(seconds=2)
    max_checks: int = 8
    renew_interval: timedelta = timedelta(seconds=5)


class Follower:
    """Watches Argo until it is cancelled. Everything it does may be repeated, also by several replicas at once."""

    def __init__(
        self,
        launch: Launch,
        runs: Runs,
        argo: Argo,
        cache: Cache,
        repository: ArtifactRepository,
        observer: Observer,
        timings: FollowerTimings,
        pods: Pods | None = None,
        config: ConfigObjects | None = None,
        *,
        steps_are_processes: bool = False,
        leases: Leases | None = None,
    ) -> None:
        self._steps_are_processes = steps_are_processes
        self._launch = launch
        self._runs = runs
        self._argo = argo
        self._repository = repository
        self._pods = pods
        self._config = config
        self._observer = observer
        self._poll_interval = timings.poll_interval.total_seconds()
        self._retry_delay = timings.retry_delay.total_seconds()
        self._checks = asyncio.Semaphore(timings.max_checks)
        self._followed: dict[str, FollowedRun] = {}
        self._queue: asyncio.Queue[FollowedRun] = asyncio.Queue()
        self._check_now = asyncio.Event()
        self._keeper: LeaseKeeper | None = None
        if leases is not None:
            self._keeper = LeaseKeeper(leases, timings.renew_interval, self._run_leases, self._ask_again)
        self._answering = GateAnswering(runs, cache, config, self._keeper, self._workflow_of)

    async def follow(self) -> None:
        """Process the changes of Workflows, and check all open runs at each start of the stream and at intervals."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._check_at_intervals())
            tasks.create_task(self._process_queue(tasks))
            if self._keeper is not None:
                tasks.create_task(self._keeper.keep())
            for namespace in self._observer.namespaces:
                missed = asyncio.Event()
                tasks.create_task(self._catch_up(namespace, missed))
                take = partial(self._take, namespace)
                tasks.create_task(self._watch(partial(self._observer.watch, namespace), take, missed))
            own = partial(self._argo.watch, f"{MANAGED_LABEL}=true")
            tasks.create_task(self._watch(own, self._enqueue, self._check_now))

    async def _watch(
        self,
        stream: Callable[[], AsyncIterator[Json | None]],
        take: Callable[[Json], Awaitable[None]],
        missed: asyncio.Event,
    ) -> None:
        """Take each change of a stream, which is opened again when it ends; set `missed` when changes may have been missed."""
        loop = asyncio.get_running_loop()
        while True:
            started = loop.time()
            try:
                async for workflow in stream():
                    if workflow is None:
                        missed.set()
                    else:
                        await take(workflow)
            except PeriplusError as error:
                log.warning("the watch of Workflows ended and is started again: %s", error)
            await asyncio.sleep(max(0.0, started + self._retry_delay - loop.time()))

    async def _process_queue(self, tasks: asyncio.TaskGroup) -> None:
        """Start a task for each run of the queue. Only here: a group that is ending takes no tasks from others than its own,
        whose cancellation it waits for.
        """
        while True:
            tasks.create_task(self._process_newest(await self._queue.get()))

    async def _check_at_intervals(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._poll_interval):
                    await self._check_now.wait()
            self._check_now.clear()
            await self._check_open_runs()

    async def _check_open_runs(self) -> None:
        """Launch the runs that Argo does not have yet, and process the Workflows whose changes may have been missed."""
        for followed in self._followed.values():
            followed.version = ""  # versions begin anew where a cluster is restored from a backup
        try:
            async for name, _ in self._argo.list(resubmitted.OPEN_SELECTOR, archived=False):
                if await self._runs.get(name) is None and (workflow := await self._argo.get(name)):
                    await self._enqueue(workflow)
        except PeriplusError as error:
            log.warning("resubmitted Workflows are listed again in %s s: %s", self._poll_interval, error)
        try:
            async with asyncio.TaskGroup() as checks:
                for run_id in await self._runs.list_open():
                    await self._checks.acquire()
                    check = checks.create_task(self._check(run_id))
                    check.add_done_callback(lambda _: self._checks.release())
        except* PeriplusError as errors:
            log.warning("open runs are checked again in %s s: %s", self._poll_interval, errors.exceptions[0])

    def _run_leases(self) -> list[tuple[Run, RunLeases]]:
        return [(followed.run, followed.leases) for followed in self._followed.values()]

    async def _ask_again(self, run_id: str) -> None:
        """Let the gates of a run that wait ask the cache again, if it is followed here."""
        if run_id not in self._followed:
            return
        try:
            async with self._checks:
                await self._check(run_id)
        except PeriplusError as error:
            log.warning("%s: its gates ask again later: %s", run_id, error)

    async def _check(self, run_id: str) -> None:
        if (followed := self._followed.get(run_id)) is not None:
            followed.leases.wake()
        run = await self._runs.get(run_id)  # before Argo is asked: it may be launched in between
        if run is not None and run.observed is not None:
            await self._check_observed(run, run.observed)
            return
        workflow = await self._argo.get(run_id)
        if workflow is not None:
            await self._enqueue(workflow)
        elif run is not None and run.phase is RunPhase.PENDING and run.is_cancelled:
            await self._finish(run, RunPhase.CANCELLED, "cancelled before it started")
        elif run is not None and run.phase is RunPhase.PENDING:
            await self._relaunch(run)
        elif run is not None and not run.phase.is_final:
            await self._finish(run, RunPhase.ERROR, "the Workflow was deleted from Argo")

    async def _check_observed(self, run: Run, observed: ObservedWorkflow) -> None:
        if observed.namespace not in self._observer.namespaces:
            await self._finish(run, RunPhase.UNOBSERVED, "its namespace is not observed any more")
            return
        workflow = await self._observer.newest(observed)
        if workflow is not None:
            await self._take(observed.namespace, workflow)
        elif not run.phase.is_final:
            await self._finish(run, RunPhase.UNOBSERVED, UNOBSERVED)

    async def _catch_up(self, namespace: str, missed: asyncio.Event) -> None:
        """Record the Workflows of an observed namespace that were not recorded, whenever changes may have been missed."""
        while True:
            await missed.wait()
            missed.clear()
            try:
                async for workflow in self._observer.unrecorded(namespace, archived=False):
                    await self.record(namespace, workflow)
            except PeriplusError as error:
                log.warning("the Workflows of %s are listed again: %s", namespace, error)
                await asyncio.sleep(self._retry_delay)
                missed.set()

    async def record(self, namespace: str, workflow: Json) -> Run | None:
        """Record the present state of an observed Workflow. Gives its run; None if it has none.

        A finished one is recorded before this returns, so that a long list of them is not held in memory.
        """
        read = await self._observer.read(workflow)
        run = await self._observer.run_of(namespace, read) if read is not None else None
        if read is None or run is None or run.phase.is_final:
            return run
        if not WorkflowStatus(read, run.state, {}, self._repository).phase.is_final:
            self._put(self._followed.setdefault(run.id, FollowedRun(run)), read)
            return run
        try:
            with _acting_for(run):
                await self._process(FollowedRun(run), read)
        except PeriplusError:
            raise
        except Exception:
            log.exception("%s: its Workflow can not be processed", run.id)
        return run

    async def _take(self, namespace: str, workflow: Json) -> None:
        """Process a state of an observed Workflow."""
        read = await self._observer.read(workflow)
        if read is None:
            return
        found = self._followed.get(run_id(read["metadata"]["name"], read["metadata"]["uid"]))
        if found is None:
            run = await self._observer.run_of(namespace, read)
            if run is None or run.phase.is_final:
                return
            found = self._followed.setdefault(run.id, FollowedRun(run))
        self._put(found, read)

    async def _relaunch(self, run: Run) -> None:
        with _acting_for(run):
            try:
                await self._launch(run)
            except Invalid as error:
                log.warning("%s: Argo refused the manifest: %s", run.id, error)

    async def _finish(self, run: Run, phase: RunPhase, message: str) -> None:
        with _acting_for(run):
            await self._runs.finish(run, [], phase, message, Outputs(), datetime.now(UTC))

    async def _enqueue(self, workflow: Json) -> None:
        """Process a state of a Workflow, unless a newer one arrives before the current one is processed."""
        name = workflow["metadata"]["name"]
        followed = self._followed.get(name)
        if followed is None:
            run = await self._runs.get(name) or await self._resubmitted(workflow)
            if run is not None and run.is_cancelled:
                await self._stop(run, workflow)
            if run is None or run.phase.is_final:
                return
            # In the meantime another state of the Workflow may have been the first.
            followed = self._followed.setdefault(name, FollowedRun(run))
        self._put(followed, workflow)

    async def _resubmitted(self, workflow: Json) -> Run | None:
        """The run of a Workflow that `argo resubmit` made of one of ours; None for any other."""
        name, original_name = workflow["metadata"]["name"], resubmitted.original_of(workflow)
        if not original_name or (workflow.get("status") or {}).get("finishedAt"):
            return None
        original, original_workflow = await self._runs.get(original_name), await self._argo.get(original_name)
        if original is None or original_workflow is None or not original.manifest:
            return None
        run = resubmitted.new_run(workflow, original, original_workflow)
        if run is None:
            log.warning("%s is not followed: its steps are not those of %s", name, original_name)
            return None
        run = await self._runs.add(run, [], [])
        if run.state.generated and resubmitted.has_other_parameters(workflow, original_workflow):
            await self._argo.stop(name, terminate=True, message=resubmitted.OTHER_PARAMETERS)
            await self._finish(run, RunPhase.ERROR, resubmitted.OTHER_PARAMETERS)
            return None
        return run

    def _put(self, followed: FollowedRun, workflow: Json) -> None:
        version = str(workflow["metadata"].get("resourceVersion", ""))
        if _is_older(version, followed.version):
            return
        followed.newest, followed.version = workflow, version
        if not followed.is_queued:
            followed.is_queued = True
            self._queue.put_nowait(followed)

    async def _stop(self, run: Run, workflow: Json) -> None:
        """Stop the Workflow of a cancelled run, in case the process that cancelled it ended before it could."""
        spec, status = workflow.get("spec") or {}, workflow.get("status") or {}
        if not spec.get("shutdown") and not status.get("finishedAt"):
            await self._argo.stop(run.id, terminate=False, message="cancelled")

    async def _process_newest(self, followed: FollowedRun) -> None:
        run_id = followed.run.id
        while (workflow := followed.newest) is not None:
            followed.newest = None
            try:
                with _acting_for(followed.run):
                    finished = await self._process(followed, workflow)
                if finished:
                    self._followed.pop(run_id, None)
                    return
            except PeriplusError as error:
                log.warning("%s: its Workflow is processed again: %s", run_id, error)
                await asyncio.sleep(self._retry_delay)
                followed.newest = followed.newest or workflow
            except Exception:
                # A Workflow that can not be read must not end the process. Its next state may be readable.
                log.exception("%s: its Workflow can not be processed", run_id)
                await asyncio.sleep(self._retry_delay)
        followed.is_queued = False

    async def _process(self, followed: FollowedRun, workflow: Json) -> bool:
        """Answer the open gates and publish the new statuses of steps. True: the run has finished."""
        run = followed.run
        if run.phase is RunPhase.PENDING:
            await self._runs.set_running(run.id)
            run = followed.run = replace(run, phase=RunPhase.RUNNING)
        if run.observed is not None:
            run = followed.run = self._observer.with_stored_templates(run, workflow)
            if resubmitted.has_other_arguments(run, workflow):
                argo, name = self._workflow_of(run)
                await argo.stop(name, terminate=True, message=resubmitted.OTHER_PARAMETERS)
                await self._finish(run, RunPhase.ERROR, resubmitted.OTHER_PARAMETERS)
                return True
        answers = await self._runs.get_answers(run.id) if run.state.generated else {}
        status = WorkflowStatus(
            workflow, run.state, answers, self._repository, steps_are_processes=self._steps_are_processes
        )
        gates = [
            gate
            for gate in status.open_gates()
            if gate.node not in followed.answered and gate.node not in followed.leases.waiting
        ]
        if gates and not status.phase.is_final:
            answers = await self._answering.answer(followed, gates, answers)
        tokens = tokens_of(run, answers)
        all_steps = status.steps()
        if tokens:
            followed.leases.held = lease_states(tokens, all_steps, status.ended_fan_outs())
            all_steps = [replace(step, lease_token=token_of(step, tokens)) for step in all_steps]
        steps = [step for step in all_steps if step.key not in followed.published]
        steps = await check_images(run, steps, self._pods, followed.images, self._argo.namespace)
        steps = await check_config(run, steps, self._config)
        if status.phase.is_final:
            at = status.finished_at or datetime.now(UTC)
            phase = await self._final_phase(run, status.phase)
            await self._runs.finish(run, steps, phase, status.message, status.outputs, at)
            return True
        if steps:
            await self._runs.publish(run, steps)
            followed.published.update(step.key for step in steps)
        await self._publish_delays(followed, status)
        return False

    async def _publish_delays(self, followed: FollowedRun, status: WorkflowStatus) -> None:
        now = datetime.now(UTC)
        published = followed.delays
        if published is None:
            published = followed.delays = await self._runs.get_delays(followed.run.id)
        delays = [*status.delays(now), *followed.leases.waiting.values()]
        changed = [delay for delay in delays if delay.reason != published.get(delay.path, "")]
        if changed:
            await self._runs.publish_delays(followed.run, changed, now)
            published.update((delay.path, delay.reason) for delay in changed)

    async def _final_phase(self, run: Run, phase: RunPhase) -> RunPhase:
        current = await self._runs.get(run.id)
        cancelled = current is not None and current.is_cancelled and phase is not RunPhase.SUCCEEDED
        return RunPhase.CANCELLED if cancelled else phase

    def _workflow_of(self, run: Run) -> tuple[Argo, str]:
        """Where the Workflow of a run is, and its name."""
        if run.observed is None:
            return self._argo, run.id
        return self._argo.in_namespace(run.observed.namespace), run.observed.name


def _is_older(version: str, other: str) -> bool:
    """Whether a resourceVersion is older than another: the stream and a check give states at the same time. One that is archived has
    none.
    """
    return version.isdigit() and other.isdigit() and int(version) < int(other)


@contextmanager
def _acting_for(run: Run) -> Iterator[None]:
    """Continue the trace of the run's submission, also after a restart, and log with the run's id."""
    with (
        telemetry.remote_context({"traceparent": run.traceparent} if run.traceparent else {}),
        telemetry.tracer.start_as_current_span("follow run"),
        telemetry.log_context(project=run.project, run=run.id),
    ):
        yield
