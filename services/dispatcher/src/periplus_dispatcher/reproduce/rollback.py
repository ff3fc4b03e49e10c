"""Makes the outputs of an earlier run the newest of its pipeline: a run that is served all of them, and the template of then."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from periplus_common import digest, telemetry
from periplus_common.errors import Conflict, Invalid, NotFound, Refused, Unavailable
from periplus_dispatcher.domain import Json, RecordedRun, RecordedStep, Run, RunState, StepNode, StepStatus
from periplus_dispatcher.manifest.rewritten import REWRITTEN_LABEL
from periplus_dispatcher.ports import Cache, Lineage, Runs, Snapshots, WorkflowTemplates
from periplus_dispatcher.reproduce.record import complete_record
from periplus_dispatcher.reproduce.requirements import MAX_STEPS, Requirement, in_order, of_output
from periplus_dispatcher.service import run_id
from periplus_model.queries import StepVerdict
from periplus_model.steps import Artifact, ObjectRef, Outputs, RunPhase, StepPhase, Verdict

TEMPLATE = "WorkflowTemplate"
_SERVED = (StepPhase.SUCCEEDED, StepPhase.CACHED)


@dataclass(frozen=True)
class RollbackRequest:
    """What a caller asks for."""

    project: str
    pipeline: str
    run: str
    keep_template: bool = False


@dataclass(frozen=True)
class TemplateRollback:
    """A WorkflowTemplate as it is and as it was; with `kept_reason` it stays as it is."""

    name: str
    current: Json
    earlier: Json | None = None
    kept_reason: str = ""
    replaced_snapshot: str = ""


@dataclass(frozen=True)
class Rollback:
    """What was checked, and the new run; None if it was only checked."""

    requirements: tuple[Requirement, ...] = ()
    template: TemplateRollback | None = None
    outputs: Outputs | None = None
    run: Run | None = None


class Rollbacks:
    """Checks and makes rollbacks."""

    def __init__(
        self,
        runs: Runs,
        lineage: Lineage | None,
        cache: Cache,
        snapshotter: Snapshots,
        templates: WorkflowTemplates,
    ) -> None:
        self._runs = runs
        self._lineage = lineage
        self._cache = cache
        self._snapshotter = snapshotter
        self._templates = templates

    async def check(self, request: RollbackRequest) -> Rollback:
        """What would be served, and what the template would become. Raises `NotFound`, `Invalid`, `Refused`, `Unavailable`."""
        run, record = await self._earlier(request)
        requirements = await self._requirements(request.project, record)
        return Rollback(tuple(requirements), await self._template(request, run), record.outputs)

    async def roll_back(self, request: RollbackRequest, request_id: str) -> Rollback:
        """Do it, or give the run of the same request. Raises as `check`, and `Refused` for bytes that are not proven."""
        if not request_id:
            raise Invalid("is required", field="request_id")
        request_digest = digest.of([request.project, "rollback", request.pipeline, request.run])
        stored = await self._runs.find(request.project, request_id)
        if stored is not None:
            if stored.request_digest != request_digest:
                raise Invalid(
                    "was used for another request before",
                    field="request_id",
                    reason="REQUEST_ID_REUSED",
                    fix="send the request with a new request_id",
                )
            return Rollback(run=stored, outputs=stored.outputs)
        run, record = await self._earlier(request)
        requirements = await self._requirements(request.project, record)
        unmet = [each for each in requirements if each.state.refuses]
        if unmet:
            raise Refused(
                f"{len(unmet)} of {len(requirements)} outputs are not proven: {unmet[0].name}: {unmet[0].reason}",
                reason="REQUIREMENTS_UNMET",
                fix=f"make them anew: periplus reproduce {request.run}",
            )
        # The template first: if that fails, nothing has happened; and it is not replaced twice.
        template = await self._restore(request, await self._template(request, run))
        new = await self._new_run(run, record, request_id, request_digest)
        return Rollback(tuple(requirements), template, record.outputs, new)

    async def _earlier(self, request: RollbackRequest) -> tuple[Run, RecordedRun]:
        run = await self._runs.get(request.run)
        if run is None or run.project != request.project:
            raise NotFound(f"no run {request.run} in project {request.project}", fix="periplus runs")
        if run.pipeline != request.pipeline:
            raise Invalid(
                f"{run.id} is a run of the pipeline {run.pipeline}",
                field="run",
                fix=f"periplus runs --pipeline {request.pipeline} --phase succeeded",
            )
        if run.phase is not RunPhase.SUCCEEDED or (run.reproduces is not None and run.reproduces.step):
            what = f"is {run.phase.label}" if run.phase is not RunPhase.SUCCEEDED else "ran one step only"
            raise Refused(
                f"the run {what}, and has not the outputs of the pipeline",
                reason="RUN_NOT_SUCCEEDED",
                fix=f"periplus runs --pipeline {run.pipeline} --phase succeeded",
            )
        return run, await complete_record(self._lineage, run)

    async def _requirements(self, project: str, record: RecordedRun) -> list[Requirement]:
        """Each object that is served, once."""
        served: dict[tuple[ObjectRef, str], tuple[Artifact, list[str]]] = {}
        for step in record.steps:
            if step.phase in _SERVED:
                for artifact in step.outputs.artifacts:
                    key = artifact.object, artifact.digest
                    served.setdefault(key, (artifact, []))[1].append(step.path)
        refs = list(dict.fromkeys(ref for ref, _ in served))
        contents = await self._cache.digest_objects(project, refs)
        return in_order(
            of_output(artifact, contents[artifact.object], tuple(paths[:MAX_STEPS]))
            for artifact, paths in served.values()
        )

    async def _template(self, request: RollbackRequest, run: Run) -> TemplateRollback | None:
        """The WorkflowTemplate of the pipeline's name; None if there is none."""
        found = await self._templates.read(TEMPLATE, request.pipeline)
        if found is None:
            return None
        current = TemplateRollback(request.pipeline, found)
        if request.keep_template:
            return replace(current, kept_reason="the request says so")
        if _is_adopted(found):
            return replace(
                current,
                kept_reason=f"it is adopted; release it first: periplus release wftmpl/{request.pipeline}",
            )
        earlier = None
        if run.snapshot:
            try:
                earlier = await self._snapshotter.library_template(
                    run.project, run.snapshot, f"{TEMPLATE}/{request.pipeline}"
                )
            except NotFound:
                earlier = None
        if earlier is not None and _is_adopted(earlier):
            return replace(current, kept_reason=f"it was adopted when the run {run.id} used it")
        if earlier is None:
            return replace(current, kept_reason=f"its spec is not stored with the run {run.id}")
        if described(earlier) == described(found):
            return replace(current, earlier=earlier, kept_reason="it is as it was")
        return replace(current, earlier=earlier)

    async def _restore(
        self, request: RollbackRequest, template: TemplateRollback | None
    ) -> TemplateRollback | None:
        """Replace the template, whose present content is stored in a snapshot first."""
        if template is None or template.kept_reason or template.earlier is None:
            return template
        content = json.dumps(described(template.current), sort_keys=True).encode()
        snapshot, _, _ = await self._snapshotter.take(
            request.project, b"", [(f"{TEMPLATE}/{template.name}", content)]
        )
        metadata = {
            name: value
            for name, value in template.current["metadata"].items()
            if name not in ("labels", "annotations", "managedFields")
        }
        earlier = described(template.earlier)
        restored = {
            **template.current,
            "metadata": {**metadata, **earlier["metadata"]},
            "spec": earlier["spec"],
        }
        try:
            await self._templates.replace(TEMPLATE, restored)
        except (Conflict, Unavailable) as error:
            raise Unavailable(
                f"the WorkflowTemplate {template.name} can not be replaced: {error.message}",
                fix="try again; or leave it as it is: --keep-template; the right is in deploy/k8s/argo/adopt.yaml",
            ) from error
        return replace(template, replaced_snapshot=snapshot)

    async def _new_run(self, run: Run, record: RecordedRun, request_id: str, request_digest: str) -> Run:
        now = datetime.now(UTC)
        statuses = [_status(run.id, step, now) for step in record.steps]
        served = sum(status.phase is StepPhase.CACHED for status in statuses)
        new = Run(
            project=run.project,
            id=run_id(run.pipeline, run.project, request_id),
            request_id=request_id,
            request_digest=request_digest,
            pipeline=run.pipeline,
            phase=RunPhase.SUCCEEDED,
            manifest="",
            state=RunState(templates=run.state.templates, cached_steps=served),
            snapshot=run.snapshot,
            cache_mode=None,
            submitted_at=now,
            parameters=record.parameters,
            outputs=record.outputs,
            finished_at=now,
            traceparent=telemetry.trace_headers().get("traceparent", ""),
            resolved=await self._runs.get_resolved(run.id),
            rolled_back_to=run.id,
        )
        try:
            return await self._runs.add(new, statuses, _nodes(run.id, record.steps))
        except Conflict as error:
            raise Unavailable(f"{error.message}; repeat the request") from error


def _is_adopted(template: Json) -> bool:
    metadata = (template.get("spec") or {}).get("workflowMetadata") or {}
    return REWRITTEN_LABEL in (metadata.get("labels") or {})


def described(template: Json) -> Json:
    """Kind, name, labels, annotations and spec of a WorkflowTemplate, as a snapshot has them."""
    metadata = template.get("metadata") or {}
    kept = {name: metadata[name] for name in ("labels", "annotations") if metadata.get(name)}
    return {
        "kind": TEMPLATE,
        "metadata": {"name": metadata.get("name"), **kept},
        "spec": template.get("spec") or {},
    }


def _nodes(earlier: str, steps: Sequence[RecordedStep]) -> list[StepNode]:
    reason = f"rolled back to the run {earlier}"
    return [
        StepNode(
            step.path,
            step.template,
            step.depends_on,
            Verdict.HIT if step.phase in _SERVED else Verdict.SKIPPED,
            reason,
        )
        for step in steps
    ]


def _status(earlier: str, step: RecordedStep, now: datetime) -> StepStatus:
    """A step of the new run: served what it was in the earlier one, whose own producer stays the producer."""
    if step.phase not in _SERVED:
        message = f"in the run {earlier} it was {step.phase.label}, and nothing is run"
        return StepStatus(step.path, StepPhase.SKIPPED, step.template, message=message, finished_at=now)
    verdict = StepVerdict(
        step.path,
        Verdict.HIT,
        fingerprint=step.fingerprint,
        producer_run=step.producer_run or earlier,
        producer_step=step.producer_step or step.path,
    )
    return StepStatus(
        step.path,
        StepPhase.CACHED,
        step.template,
        outputs=step.outputs,
        started_at=now,
        finished_at=now,
        verdict=verdict,
    )
