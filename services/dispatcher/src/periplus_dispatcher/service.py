"""What the dispatcher does with an order: read it, ask what is known of it, and have Argo run the rest."""

import base64
import hashlib
import json
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from periplus_common.errors import Invalid, NotFound, Refused, Unavailable
from periplus_dispatcher import rewrite
from periplus_dispatcher.domain import Outputs, Phase, Verdict
from periplus_dispatcher.draft import Draft, Order, Reader, nodes
from periplus_dispatcher.nodes import Store
from periplus_dispatcher.observe import Seen, View
from periplus_dispatcher.plan import Plan
from periplus_dispatcher.ports import Argo, Runs
from periplus_dispatcher.record import Record, Run

log = logging.getLogger(__name__)

Json = dict[str, Any]
NAME = 63  # characters of a name; it becomes a label


@dataclass(frozen=True)
class Submitted:
    """A run that was accepted; the draft is absent where the request had made it before."""

    run: Run
    draft: Draft | None


class Dispatcher:
    """Takes orders. What becomes of a run once Argo has it is the follower's to tell."""

    def __init__(self, runs: Runs, argo: Argo, reader: Reader, store: Store, gate_seconds: int) -> None:
        self._runs = runs
        self._argo = argo
        self._reader = reader
        self._store = store
        self._gate_seconds = gate_seconds

    async def plan(self, order: Order) -> Draft:
        """Say what a run would do."""
        draft = await self._reader.draft(order)
        try:
            said = await self._argo.lint(
                rewrite.addressed(
                    draft.manifest, "plan", self._argo.namespace, order.project, draft.parameters
                )
            )
        except Unavailable as error:
            said = (f"Argo did not check the manifest: {error}",)
        return replace(draft, warnings=(*draft.warnings, *said))

    async def submit(self, order: Order, request_id: str) -> Submitted:
        """Run an order, or give the run that the same request made before."""
        known = await self._runs.find(order.project, request_id)
        if known is not None:
            return Submitted(_same(known, order), None)
        draft = await self._reader.draft(order)
        run, steps = self._run(order, request_id, draft)
        if not run.phase.final:
            run, said = await self._checked(run, draft)
            draft = replace(draft, warnings=(*draft.warnings, *said))
        kept = await self._runs.add(run, steps, nodes(draft))
        if kept.request_digest != run.request_digest or kept.submitted_at != run.submitted_at:
            return Submitted(_same(kept, order), None)
        if not run.phase.final:
            kept = await self.launch(kept)
        return Submitted(kept, draft)

    async def launch(self, run: Run) -> Run:
        """Give a recorded run to Argo. Where Argo is away, the run stays pending and is launched later."""
        try:
            await self._argo.create(json.loads(run.manifest))
        except Unavailable as error:
            log.warning("%s waits for Argo: %s", run.id, error)
            return run
        except Invalid as error:
            now = datetime.now(UTC)
            await self._runs.finish(run, [], Phase.ERROR, str(error), Outputs(), now)
            return replace(run, phase=Phase.ERROR, message=str(error), finished_at=now)
        await self._runs.started(run.id)
        current = await self._runs.get(run.id)
        if current is not None and current.cancelled:  # while it was on its way
            await self._argo.stop(run.id, terminate=False, message="stopped by a person")
        return replace(run, phase=Phase.RUNNING)

    async def _checked(self, run: Run, draft: Draft) -> tuple[Run, tuple[str, ...]]:
        """Have Argo look at a manifest before the run is recorded: what it refuses leaves no trace.

        Gives what it warns of, too. Where it refuses what we wrote but not what the user wrote, the run goes as the user wrote it.
        """
        try:
            return run, await self._argo.lint(json.loads(run.manifest))
        except Unavailable as error:
            log.warning("%s was not checked by Argo: %s", run.id, error)
            return run, ()
        except Invalid as error:
            if not run.record.generated:
                raise
            plain = rewrite.addressed(
                draft.manifest, run.id, self._argo.namespace, run.project, draft.parameters
            )
            said = await self._argo.lint(plain)
            log.error("%s goes without the cache, as Argo refuses its gates: %s", run.id, error)
            record = replace(run.record, generated={}, fans={}, resolved={})
            return replace(run, manifest=json.dumps(plain), record=record), said

    async def cancel(self, project: str, run_id: str, *, terminate: bool, reason: str) -> Phase:
        """Stop a run. One that has ended stays as it is."""
        run = await self._found(project, run_id)
        if run.phase.final:
            return run.phase
        await self._runs.cancel(run_id)
        await self._argo.stop(run_id, terminate=terminate, message=reason or "stopped by a person")
        if run.phase is Phase.PENDING and await self._argo.get(run_id) is None:
            now = datetime.now(UTC)
            await self._runs.finish(run, [], Phase.CANCELLED, "stopped before it began", Outputs(), now)
            return Phase.CANCELLED
        return run.phase

    async def logs(
        self, project: str, run_id: str, step: str, *, follow: bool
    ) -> AsyncIterator[tuple[str, str]]:
        """What the steps of a run print, as (path of the step, line)."""
        run = await self._found(project, run_id)
        if not run.manifest:
            raise Refused("nothing of this run was run: the cache had it all", fix=f"periplus runs {run_id}")
        paths: dict[str, str] = {}
        async for pod, line in self._argo.logs(run_id, follow=follow):
            if pod not in paths:
                paths = await self._pods(run)
            path = paths.get(pod, pod)
            if not step or path == step or path.startswith((f"{step}(", f"{step}.")):
                yield path, line

    async def _pods(self, run: Run) -> dict[str, str]:
        """Paths of the steps by pod name; Argo names a pod by workflow, template and the number of its node."""
        workflow = await self._argo.get(run.id)
        if workflow is None:
            raise NotFound(f"Argo has forgotten {run.id}, and its logs with it")
        view = View(workflow, run.record, await self._runs.answers(run.id), self._store)
        found = {}
        for node, path in view.pods().items():
            template = workflow["status"]["nodes"][node].get("templateName", "")
            found[node] = found[f"{run.id}-{template}-{node.rpartition('-')[2]}"] = path
        return found

    async def _found(self, project: str, run_id: str) -> Run:
        run = await self._runs.get(run_id)
        if run is None or run.project != project:
            raise NotFound(f"no run {run_id} in project {project}", fix="periplus runs")
        return run

    def _run(self, order: Order, request_id: str, draft: Draft) -> tuple[Run, list[Seen]]:
        """The run of a draft, and the steps that are over before it begins."""
        name = run_name(draft.pipeline, order.project, request_id)
        plan, now = draft.plan, datetime.now(UTC)
        record = Record(templates=draft.walk.templates, cached=len(plan.hits), saved=plan.saved)
        run = Run(
            project=order.project,
            id=name,
            request_id=request_id,
            request_digest=order.digest,
            pipeline=draft.pipeline,
            phase=Phase.SUCCEEDED,
            manifest="",
            record=record,
            snapshot=draft.snapshot,
            cache=order.cache.value if order.cache else "",
            submitted_at=now,
            parameters=draft.parameters,
            source=order.manifest,
            outputs=plan.outputs,
            finished_at=now,
        )
        if plan.complete:
            return run, _left_out(plan, now)
        written = rewrite.rewrite(draft.manifest, plan, draft.walk.templates, gate_seconds=self._gate_seconds)
        manifest = rewrite.addressed(
            written.manifest, name, self._argo.namespace, order.project, draft.parameters
        )
        changed = {s.call.path: s.resolved for s in plan.steps if s.treatment.value in ("hit", "part")}
        record = Record(
            templates=draft.walk.templates,
            generated=written.generated,
            fans=written.fans,
            resolved=changed if written.generated else {},
            verdicts=_verdicts(plan),
        )
        return replace(
            run, phase=Phase.PENDING, manifest=json.dumps(manifest), record=record, finished_at=None
        ), []


def run_name(pipeline: str, project: str, request_id: str) -> str:
    """The run's id: the same request always gives the same, so that submitting twice is submitting once."""
    seed = hashlib.sha256(f"{project}\0{request_id}".encode()).digest()
    suffix = base64.b32encode(seed[:5]).decode().lower()
    return f"{pipeline[: NAME - len(suffix) - 1].rstrip('-.')}-{suffix}"


def _left_out(plan: Plan, now: datetime) -> list[Seen]:
    """The steps of a plan that is complete."""
    hits = [
        Seen(path, Phase.CACHED, step.call.template, outputs=hit.outputs or Outputs(), started_at=now,
             finished_at=now, resolved=hit)
        for step in plan.steps
        for path, hit in step.each
        if hit.verdict is Verdict.HIT
    ]  # fmt: skip
    skipped = [
        Seen(step.call.path, Phase.SKIPPED, step.call.template, message=step.resolved.reason,
             finished_at=now)
        for step in plan.steps
        if step.resolved.verdict is Verdict.SKIPPED
    ]  # fmt: skip
    return hits + skipped


def _verdicts(plan: Plan) -> dict[str, str]:
    """The verdict of each step and of each item, by path."""
    steps = {step.call.path: step.resolved.verdict.value for step in plan.steps}
    return steps | {path: found.verdict.value for step in plan.steps for path, found in step.each}


def _same(run: Run, order: Order) -> Run:
    if run.request_digest != order.digest:
        raise Invalid(
            "was used for another request before", field="request_id", reason="REQUEST_ID_REUSED",
            fix="send the request with a new request_id",
        )  # fmt: skip
    return run
