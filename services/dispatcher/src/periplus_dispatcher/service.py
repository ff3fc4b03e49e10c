"""What the dispatcher does with run requests: plan them, submit them to Argo, cancel runs and read their logs."""

import asyncio
import base64
import hashlib
import json
import logging
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from periplus_common import telemetry
from periplus_common.errors import Invalid, NotFound, Refused, Unavailable
from periplus_dispatcher.domain import Json, Run, RunRequest, RunState, StepStatus
from periplus_dispatcher.follow.nodes import ArtifactRepository
from periplus_dispatcher.follow.observe import WorkflowStatus
from periplus_dispatcher.observed.run import REQUEST_PREFIX
from periplus_dispatcher.planner import PlannedRun, Planner
from periplus_dispatcher.ports import Argo, ObservedArgo, Runs
from periplus_dispatcher.rewrite.generated import RewrittenManifest
from periplus_dispatcher.rewrite.plan import Plan, without_cache
from periplus_dispatcher.rewrite.rewriter import resolved_manifest, rewrite, to_submit
from periplus_manifest.bounds import MAX_MANIFEST_BYTES
from periplus_model.steps import Outputs, RunPhase, StepPhase, Verdict

log = logging.getLogger(__name__)

MAX_NAME_CHARACTERS = 63
"""A run's id is the name of its Workflow, which becomes the value of a label."""

TOO_LARGE = f"every step runs: with its gates and cached outputs the workflow would have more than {MAX_MANIFEST_BYTES} bytes"
_PHASES_WITHOUT_RUN = {Verdict.HIT: StepPhase.CACHED, Verdict.SKIPPED: StepPhase.SKIPPED}


@dataclass(frozen=True)
class SubmittedRun:
    """A run that was accepted. `planned` is None if the request had been submitted before."""

    run: Run
    planned: PlannedRun | None


class Dispatcher:
    """Plans and submits runs. The follower publishes what happens to a run once Argo has it."""

    def __init__(
        self,
        runs: Runs,
        argo: Argo,
        planner: Planner,
        repository: ArtifactRepository,
        gate_timeout: timedelta,
        wait_timeout: timedelta | None = None,
    ) -> None:
        self._wait_timeout = wait_timeout
        self._runs = runs
        self._argo = argo
        self._planner = planner
        self._repository = repository
        self._gate_timeout = gate_timeout

    async def plan(self, request: RunRequest) -> PlannedRun:
        """Plan a run without submitting it. Raises `Invalid`."""
        planned = await self._plan(request)
        name = run_id(planned.pipeline, request.project, "plan")
        manifest = self._to_submit(planned.manifest, name, request.project, planned)
        if planned.rewritten is not None:
            submitted = self._to_submit(planned.rewritten.manifest, name, request.project, planned)
            planned = replace(planned, submitted=submitted)
        try:
            warnings = await self._argo.lint(manifest)
        except Unavailable as error:
            warnings = (f"Argo did not check the manifest: {error}",)
        return replace(planned, warnings=(*planned.warnings, *warnings))

    async def submit(self, request: RunRequest, request_id: str) -> SubmittedRun:
        """Run a manifest, or give the run of the same request. Raises `Invalid`, `Conflict`, `Unavailable`."""
        if request_id.startswith(REQUEST_PREFIX):
            raise Invalid(
                f"begins with {REQUEST_PREFIX}, as only those of observed Workflows do",
                field="request_id",
                fix="send the request with another request_id",
            )
        existing = await self._runs.find(request.project, request_id)
        if existing is not None:
            return SubmittedRun(_checked_request(existing, request), None)
        planned = await self._plan(request, request_id)
        run, hits = self._new_run(request, request_id, planned)
        with telemetry.log_context(project=run.project, run=run.id):
            if not run.phase.is_final:
                is_rewritten = bool(run.state.generated)
                run, warnings = await self._lint(run, planned)
                planned = replace(planned, warnings=(*planned.warnings, *warnings))
                if is_rewritten and not run.state.generated:
                    planned = _without_cache(planned, "Argo refuses what the cache adds to the workflow")
                    run = replace(run, state=planned.plan.given_to(run.state))
            stored = await self._runs.add(run, hits, planned.plan.nodes)
            if stored.request_digest != run.request_digest or stored.submitted_at != run.submitted_at:
                return SubmittedRun(_checked_request(stored, request), None)
            if not run.phase.is_final:
                stored = await self.launch(stored)
            return SubmittedRun(stored, planned)

    async def launch(self, run: Run) -> Run:
        """Create the Workflow of a stored run. If Argo can not be reached, the run stays PENDING for the follower."""
        try:
            await self._argo.create(json.loads(run.manifest))
        except Unavailable as error:
            log.warning("%s: stays pending until Argo can be reached: %s", run.id, error)
            return run
        except Invalid as error:
            now = datetime.now(UTC)
            await self._runs.finish(run, [], RunPhase.ERROR, str(error), Outputs(), now)
            return replace(run, phase=RunPhase.ERROR, message=str(error), finished_at=now)
        await self._runs.set_running(run.id)
        current = await self._runs.get(run.id)
        if current is not None and current.is_cancelled:  # while the Workflow was being created
            await self._argo.stop(run.id, terminate=False, message="cancelled")
        return replace(run, phase=RunPhase.RUNNING)

    async def phase(self, project: str, run_id: str) -> RunPhase:
        """The phase of a run. Raises `NotFound`."""
        return (await self._get(project, run_id)).phase

    async def cancel(self, project: str, run_id: str, *, terminate: bool, reason: str) -> RunPhase:
        """Cancel a run; one that has finished stays as it is. Raises `NotFound`, `Unavailable`."""
        run = await self._get(project, run_id)
        if run.phase.is_final:
            return run.phase
        if run.observed is not None:
            raise Refused(
                "others submitted its Workflow, which Periplus only observes",
                fix=f"argo stop -n {run.observed.namespace} {run.observed.name}",
            )
        await self._runs.set_cancelled(run_id)
        await self._argo.stop(run_id, terminate=terminate, message=reason or "cancelled")
        if run.phase is RunPhase.PENDING and await self._argo.get(run_id) is None:
            now = datetime.now(UTC)
            await self._runs.finish(
                run, [], RunPhase.CANCELLED, "cancelled before it started", Outputs(), now
            )
            return RunPhase.CANCELLED
        return run.phase

    async def logs(
        self, project: str, run_id: str, step: str, *, follow: bool
    ) -> AsyncIterator[tuple[str, str]]:
        """Path of the step and line. `step` selects a step with its items and inner steps; empty: all."""
        run = await self._get(project, run_id)
        if not run.manifest:
            raise Refused("the run has no logs: every step was a hit", fix=f"periplus runs {run_id}")
        paths: dict[str, str] = {}
        argo, name = self._workflow_of(run)
        async for pod, line in argo.logs(name, follow=follow):
            if pod not in paths:
                paths = await self._pod_steps(run)
            path = paths.get(pod, pod)
            if not step or path == step or path.startswith((f"{step}(", f"{step}.")):
                yield path, line

    async def _lint(self, run: Run, planned: PlannedRun) -> tuple[Run, tuple[str, ...]]:
        """Have Argo check the manifest before the run is stored. Gives the run, and Argo's warnings.

        Raises `Invalid` for a manifest that Argo refuses. If it refuses only what the rewrite added, the run goes
        without the rewrite; if it refuses only the copies of library templates, as it was written, and nothing of it is cached.
        """
        try:
            return run, await self._argo.lint(json.loads(run.manifest))
        except Unavailable as error:
            log.warning("%s: Argo did not check the manifest: %s", run.id, error)
            return run, ()
        except Invalid as error:
            refusal = error
        without_rewrite = replace(run.state, generated={}, fan_outs={}, stretches={}, resolved={})
        if run.state.generated:
            with suppress(Invalid):
                return await self._lint_instead(run, planned, planned.manifest, without_rewrite, refusal)
        if planned.manifest != planned.source:
            # Without templates in the state nothing is recorded: a template may be edited before Argo reads it.
            state = replace(without_rewrite, templates={})
            with suppress(Invalid):
                return await self._lint_instead(run, planned, planned.source, state, refusal)
        raise refusal

    async def _lint_instead(
        self, run: Run, planned: PlannedRun, manifest: Json, state: RunState, refusal: Invalid
    ) -> tuple[Run, tuple[str, ...]]:
        submitted = self._to_submit(manifest, run.id, run.project, planned)
        warnings = await self._argo.lint(submitted)
        log.error("%s: runs without the cache, as Argo refuses the rewritten manifest: %s", run.id, refusal)
        if manifest is planned.source:
            run = replace(run, resolved=self._resolved(manifest, run, planned))
        return replace(run, manifest=json.dumps(submitted), state=state), warnings

    async def _pod_steps(self, run: Run) -> dict[str, str]:
        argo, name = self._workflow_of(run)
        workflow = await argo.get(name)
        if workflow is None:
            raise NotFound(f"Argo has deleted the Workflow {run.id} and its logs")
        answers = await self._runs.get_answers(run.id)
        return WorkflowStatus(workflow, run.state, answers, self._repository).pod_steps()

    def _workflow_of(self, run: Run) -> tuple[ObservedArgo, str]:
        """Where the Workflow of a run is, and its name."""
        if run.observed is None:
            return self._argo, run.id
        return self._argo.in_namespace(run.observed.namespace), run.observed.name

    async def _get(self, project: str, run_id: str) -> Run:
        run = await self._runs.get(run_id)
        if run is None or run.project != project:
            raise NotFound(f"no run {run_id} in project {project}", fix="periplus runs")
        return run

    def _to_submit(self, manifest: Json, name: str, project: str, planned: PlannedRun) -> Json:
        now = datetime.now(UTC)
        return to_submit(manifest, name, self._argo.namespace, project, planned.parameters, now)

    def _resolved(self, manifest: Json, run: Run, planned: PlannedRun) -> str:
        """The resolved manifest of a run, as JSON."""
        submitted = self._to_submit(manifest, run.id, run.project, planned)
        resolved = resolved_manifest(submitted, planned.source, planned.pipeline)
        return json.dumps(resolved, ensure_ascii=False, separators=(",", ":"))

    async def _plan(self, request: RunRequest, request_id: str = "") -> PlannedRun:
        """The plan of a request; with its id, that of its run, which gets leases of the steps that it will make."""

        def run_of(pipeline: str) -> str:
            return run_id(pipeline, request.project, request_id)

        planned = await self._planner.plan(request, run_of if request_id else None)
        if planned.plan.is_complete:
            return planned
        # In a thread: thousands of calls take a second, and would delay every other call.
        rewritten = await asyncio.to_thread(self._rewrite, planned)
        if rewritten.is_too_large:
            planned = _without_cache(planned, "the workflow would be too large with what the cache adds")
            planned = replace(planned, warnings=(*planned.warnings, TOO_LARGE))
        return replace(planned, rewritten=rewritten)

    def _rewrite(self, planned: PlannedRun) -> RewrittenManifest:
        templates = planned.expanded.templates
        return rewrite(
            planned.manifest,
            planned.plan,
            templates,
            gate_timeout=self._gate_timeout,
            wait_timeout=self._wait_timeout,
        )

    def _new_run(
        self, request: RunRequest, request_id: str, planned: PlannedRun
    ) -> tuple[Run, list[StepStatus]]:
        """The run of a planned run, and the statuses of the steps that are over before it starts."""
        plan, now = planned.plan, datetime.now(UTC)
        templates = planned.expanded.templates
        finished = Run(
            project=request.project,
            id=run_id(planned.pipeline, request.project, request_id),
            request_id=request_id,
            request_digest=request.digest,
            pipeline=planned.pipeline,
            phase=RunPhase.SUCCEEDED,
            manifest="",
            state=RunState(templates=templates, cached_steps=len(plan.hits), saved=plan.saved),
            snapshot=planned.snapshot,
            cache_mode=request.cache_mode,
            submitted_at=now,
            parameters=planned.parameters,
            source=request.manifest,
            outputs=plan.outputs,
            finished_at=now,
            traceparent=telemetry.trace_headers().get("traceparent", ""),
            reproduces=request.reproduces,
        )
        finished = replace(finished, resolved=self._resolved(planned.pinned, finished, planned))
        if plan.is_complete:
            return finished, _statuses_without_run(plan, now)
        rewritten = planned.rewritten or self._rewrite(planned)
        manifest = self._to_submit(rewritten.manifest, finished.id, request.project, planned)
        state = planned.state(rewritten)
        run = replace(
            finished, phase=RunPhase.PENDING, manifest=json.dumps(manifest), state=state, finished_at=None
        )
        return run, []


def _without_cache(planned: PlannedRun, reason: str) -> PlannedRun:
    """The plan of a run that goes to Argo as it is, for a reason."""
    return replace(planned, plan=without_cache(planned.expanded, planned.plan, reason))


def run_id(pipeline: str, project: str, request_id: str) -> str:
    """The id of a request's run, always the same, so that a request that is sent twice is one run."""
    seed = hashlib.sha256(f"{project}\0{request_id}".encode()).digest()
    suffix = base64.b32encode(seed[:5]).decode().lower()
    return f"{pipeline[: MAX_NAME_CHARACTERS - len(suffix) - 1].rstrip('-.')}-{suffix}"


def _statuses_without_run(plan: Plan, now: datetime) -> list[StepStatus]:
    """The statuses of the steps of a complete plan, in its order."""
    return [
        StepStatus(
            path=path,
            phase=_PHASES_WITHOUT_RUN[verdict.verdict],
            template=step.call.template,
            message="" if verdict.verdict is Verdict.HIT else verdict.reason,
            outputs=verdict.outputs or Outputs(),
            started_at=now if verdict.verdict is Verdict.HIT else None,
            finished_at=now,
            verdict=verdict if verdict.verdict is Verdict.HIT else None,
        )
        for step in plan.steps
        for path, verdict in step.verdicts
        if verdict.verdict in _PHASES_WITHOUT_RUN
    ]


def _checked_request(run: Run, request: RunRequest) -> Run:
    """The run, if this is its request. Raises `Invalid`."""
    if run.request_digest != request.digest:
        raise Invalid(
            "was used for another request before",
            field="request_id",
            reason="REQUEST_ID_REUSED",
            fix="send the request with a new request_id",
        )
    return run
