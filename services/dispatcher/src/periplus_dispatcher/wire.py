"""Proto ↔ domain, pure, both directions. The only meeting of the two."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from periplus.cache.v1 import cache_pb2
from periplus.dispatcher.v1 import dispatcher_pb2, events_pb2
from periplus.types.v1 import step_pb2
from periplus_common import bus
from periplus_common.digest import sha256
from periplus_dispatcher.domain import (
    Artifact,
    Inputs,
    Item,
    Literal,
    Mode,
    Object,
    Output,
    Outputs,
    Part,
    Phase,
    Query,
    Raw,
    Resolved,
    Source,
    Template,
    Text,
    Verdict,
)
from periplus_dispatcher.observe import Seen
from periplus_dispatcher.plan import Plan
from periplus_dispatcher.record import Run
from periplus_dispatcher.service import Draft, Order, Submitted

Json = dict[str, Any]

_MODES = {
    Mode.OFF: step_pb2.CACHE_MODE_OFF,
    Mode.READ: step_pb2.CACHE_MODE_READ,
    Mode.WRITE: step_pb2.CACHE_MODE_WRITE,
    Mode.READWRITE: step_pb2.CACHE_MODE_READWRITE,
    Mode.REFRESH: step_pb2.CACHE_MODE_REFRESH,
}
_FROM_MODE = {number: mode for mode, number in _MODES.items()}


def order(spec: dispatcher_pb2.RunSpec) -> Order:
    """What a caller wants run."""
    claim = spec.claim if spec.HasField("claim") else None
    return Order(spec.project, spec.manifest, dict(spec.parameters), _FROM_MODE.get(spec.cache), claim)


def templates(found: Mapping[str, Template]) -> dict[str, step_pb2.StepTemplate]:
    """What steps do, as the cache is told."""
    return {name: template(each) for name, each in found.items()}


def template(found: Template, *, document: bool = True) -> step_pb2.StepTemplate:
    """What a step does; without its document where nobody needs it."""
    policy = found.policy
    shown = step_pb2.CachePolicy(
        mode=_MODES[policy.mode], ignore_inputs=policy.ignore_inputs, side_effects=policy.side_effects
    )
    if policy.ttl is not None:
        shown.ttl.CopyFrom(duration(policy.ttl))
    return step_pb2.StepTemplate(
        name=found.name,
        document=found.document if document else "{}",
        policy=shown,
        uncacheable=found.uncacheable,
    )


def query(asked: Query) -> cache_pb2.StepQuery:
    """One step, as the cache is asked for it."""
    return cache_pb2.StepQuery(
        id=asked.id,
        template=asked.template,
        parameters=[cache_pb2.ParameterSource(name=n, value=text(t)) for n, t in asked.parameters.items()],
        artifacts=[_source(n, s) for n, s in asked.artifacts.items()],
        items=text(asked.items) if asked.items is not None else None,
    )


def text(parts: Text) -> cache_pb2.Text:
    """A value, known or to be known."""
    return cache_pb2.Text(parts=[_part(part) for part in parts])


def _part(part: Part) -> cache_pb2.Part:
    if isinstance(part, Literal):
        return cache_pb2.Part(literal=part.text)
    if isinstance(part, Output):
        return cache_pb2.Part(output=_output_ref(part))
    if isinstance(part, Item):
        return cache_pb2.Part(item=part.member)
    return cache_pb2.Part(unknown=part.what)


def _output_ref(output: Output) -> cache_pb2.OutputRef:
    return cache_pb2.OutputRef(step=output.step, name=output.name, result=output.result)


def _source(name: str, source: Source) -> cache_pb2.ArtifactSource:
    if isinstance(source, Output):
        return cache_pb2.ArtifactSource(name=name, output=_output_ref(source))
    if isinstance(source, Object):
        return cache_pb2.ArtifactSource(name=name, object=_object_ref(source))
    if isinstance(source, Raw):
        return cache_pb2.ArtifactSource(name=name, raw=source.data)
    return cache_pb2.ArtifactSource(name=name, unknown=source.what)


def resolved(verdict: cache_pb2.StepVerdict) -> Resolved:
    """What the cache says of a step."""
    return Resolved(
        verdict=_VERDICTS[verdict.verdict],
        reason=verdict.reason,
        fingerprint=verdict.fingerprint,
        outputs=from_outputs(verdict.outputs) if verdict.HasField("outputs") else None,
        run=verdict.run,
        step=verdict.step,
        saved=verdict.saved.ToTimedelta().total_seconds(),
        items=tuple(resolved(item) for item in verdict.items),
        items_json=verdict.items_json,
    )


_VERDICTS = {
    step_pb2.VERDICT_HIT: Verdict.HIT,
    step_pb2.VERDICT_MISS: Verdict.MISS,
    step_pb2.VERDICT_PENDING: Verdict.PENDING,
    step_pb2.VERDICT_UNKNOWN: Verdict.UNKNOWN,
    step_pb2.VERDICT_UNCACHEABLE: Verdict.UNCACHEABLE,
    step_pb2.VERDICT_SKIPPED: Verdict.SKIPPED,
}
_TO_VERDICT = {verdict: number for number, verdict in _VERDICTS.items()}
_STEP_PHASES = {
    Phase.PENDING: step_pb2.STEP_PHASE_PENDING,
    Phase.RUNNING: step_pb2.STEP_PHASE_RUNNING,
    Phase.SUCCEEDED: step_pb2.STEP_PHASE_SUCCEEDED,
    Phase.FAILED: step_pb2.STEP_PHASE_FAILED,
    Phase.ERROR: step_pb2.STEP_PHASE_ERROR,
    Phase.SKIPPED: step_pb2.STEP_PHASE_SKIPPED,
    Phase.CACHED: step_pb2.STEP_PHASE_CACHED,
}
_RUN_PHASES = {
    Phase.PENDING: step_pb2.RUN_PHASE_PENDING,
    Phase.RUNNING: step_pb2.RUN_PHASE_RUNNING,
    Phase.SUCCEEDED: step_pb2.RUN_PHASE_SUCCEEDED,
    Phase.FAILED: step_pb2.RUN_PHASE_FAILED,
    Phase.ERROR: step_pb2.RUN_PHASE_ERROR,
    Phase.CANCELLED: step_pb2.RUN_PHASE_CANCELLED,
}


def run_phase(phase: Phase) -> step_pb2.RunPhase.ValueType:
    """How far a run is."""
    return _RUN_PHASES[phase]


def outputs(found: Outputs) -> step_pb2.Outputs:
    """What a step or a workflow gave."""
    return step_pb2.Outputs(
        parameters=parameters(found.parameters),
        artifacts=[_artifact(artifact) for artifact in found.artifacts],
        result=found.result,
        exit_code=found.exit_code,
    )


def from_outputs(found: step_pb2.Outputs) -> Outputs:
    """What the cache kept of a step."""
    return Outputs(
        {p.name: p.value for p in found.parameters},
        tuple(
            Artifact(a.name, Object(a.object.key, a.object.bucket, a.object.endpoint), a.digest, a.size_bytes)
            for a in found.artifacts
        ),
        found.result if found.HasField("result") else None,
        found.exit_code if found.HasField("exit_code") else None,
    )


def parameters(found: Mapping[str, str]) -> list[step_pb2.Parameter]:
    """Parameters with their values."""
    return [step_pb2.Parameter(name=name, value=value) for name, value in found.items()]


def _inputs(found: Inputs) -> step_pb2.Inputs:
    return step_pb2.Inputs(
        parameters=parameters(found.parameters),
        artifacts=[_artifact(artifact) for artifact in found.artifacts],
    )


def _artifact(artifact: Artifact) -> step_pb2.Artifact:
    return step_pb2.Artifact(
        name=artifact.name,
        object=_object_ref(artifact.object),
        digest=artifact.digest,
        size_bytes=artifact.size,
    )


def _object_ref(place: Object) -> step_pb2.ObjectRef:
    return step_pb2.ObjectRef(key=place.key, bucket=place.bucket, endpoint=place.endpoint)


def plan(draft: Draft) -> dispatcher_pb2.Plan:
    """A plan as people and programs are shown it: steps, and items where they are known."""
    shown = dispatcher_pb2.Plan(saved=duration(draft.plan.saved), warnings=draft.warnings)
    for step in draft.plan.steps:
        call = step.call
        if call.nested and not call.obstacle:
            continue
        for path, found in _each(draft.plan, call.path, step.resolved):
            shown.steps.add(
                path=path,
                template=call.template,
                verdict=_TO_VERDICT[found.verdict],
                reason=found.reason,
                from_run=found.run,
                saved=duration(found.saved),
                fingerprint=found.fingerprint,
                after=call.after,
            )
    return shown


def _each(_: Plan, path: str, found: Resolved) -> list[tuple[str, Resolved]]:
    if not found.items:
        return [(path, found)]
    return [(f"{path}({index})", item) for index, item in enumerate(found.items)]


def submitted(done: Submitted) -> dispatcher_pb2.SubmitRunResponse:
    """A run that was accepted."""
    return dispatcher_pb2.SubmitRunResponse(
        run=done.run.id,
        phase=run_phase(done.run.phase),
        plan=plan(done.draft) if done.draft else None,
        outputs=outputs(done.run.outputs) if done.run.phase.final else None,
    )


def run_submitted(run: Run, nodes: Sequence[Json]) -> bus.Event:
    """The event that tells of a run's beginning."""
    message = events_pb2.RunSubmitted(
        project=run.project,
        run=run.id,
        pipeline=run.pipeline,
        snapshot=run.snapshot,
        parameters=parameters(run.parameters),
        steps=[
            events_pb2.StepNode(
                path=node["path"],
                template=node["template"],
                after=node["after"],
                verdict=_TO_VERDICT[Verdict(node["verdict"])],
                reason=node["reason"],
            )
            for node in nodes
        ],
        manifest_digest=sha256(run.source.encode()),
        submitted_at=timestamp(run.submitted_at),
    )
    return bus.event(message, project=run.project, run=run.id, key="submitted", at=run.submitted_at)


def run_finished(run: Run, cached: int, saved: float) -> bus.Event:
    """The event that tells of a run's end."""
    assert run.finished_at is not None
    message = events_pb2.RunFinished(
        project=run.project,
        run=run.id,
        phase=run_phase(run.phase),
        message=run.message,
        outputs=outputs(run.outputs),
        pipeline=run.pipeline,
        submitted_at=timestamp(run.submitted_at),
        finished_at=timestamp(run.finished_at),
        cached_steps=cached,
        saved=duration(saved),
    )
    return bus.event(message, project=run.project, run=run.id, key="finished", at=run.finished_at)


def step_event(run: Run, step: Seen) -> bus.Event:
    """The event that tells how far a step is."""
    at = step.finished_at or step.started_at or datetime.now(UTC)
    if step.phase is Phase.RUNNING:
        started = events_pb2.StepStarted(
            project=run.project, run=run.id, step=step.path, template=step.template, node=step.node,
            started_at=timestamp(step.started_at),
        )  # fmt: skip
        return bus.event(started, project=run.project, run=run.id, key=step.path, at=at)
    return bus.event(_finished(run, step), project=run.project, run=run.id, key=step.path, at=at)


def _finished(run: Run, step: Seen) -> events_pb2.StepFinished:
    described = run.record.templates.get(step.template) or Template(step.template or step.path, "{}")
    ran = step.phase in (Phase.SUCCEEDED, Phase.FAILED, Phase.ERROR)
    message = events_pb2.StepFinished(
        project=run.project,
        run=run.id,
        step=step.path,
        template=template(described, document=ran),
        node=step.node,
        phase=_STEP_PHASES[step.phase],
        message=step.message,
        inputs=_inputs(step.inputs),
        outputs=outputs(step.outputs),
        started_at=timestamp(step.started_at),
        finished_at=timestamp(step.finished_at),
        verdict=_TO_VERDICT[Verdict(run.record.verdicts.get(step.path, "miss"))],
        attempts=step.attempts,
        snapshot=run.snapshot,
        cache=_MODES[Mode(run.cache)] if run.cache else step_pb2.CACHE_MODE_UNSPECIFIED,
    )
    if found := step.resolved:
        message.verdict = step_pb2.VERDICT_HIT
        message.fingerprint = found.fingerprint
        message.from_run, message.from_step = found.run, found.step
        message.saved.CopyFrom(duration(found.saved))
    return message


def duration(seconds: float) -> Duration:
    """Seconds, as the wire has them."""
    found = Duration()
    found.FromTimedelta(timedelta(seconds=seconds))
    return found


def timestamp(at: datetime | None) -> Timestamp | None:
    """A moment, as the wire has it."""
    if at is None:
        return None
    found = Timestamp()
    found.FromDatetime(at)
    return found
