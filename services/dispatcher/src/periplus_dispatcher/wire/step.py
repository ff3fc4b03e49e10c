"""Steps and what goes in and out of them: proto ↔ domain."""

from collections.abc import Mapping
from datetime import datetime, timedelta

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from periplus.types.v1 import step_pb2
from periplus_dispatcher.domain import Artifact, Inputs, Mode, Object, Outputs, Phase, Template, Verdict

MODES = {
    Mode.OFF: step_pb2.CACHE_MODE_OFF,
    Mode.READ: step_pb2.CACHE_MODE_READ,
    Mode.WRITE: step_pb2.CACHE_MODE_WRITE,
    Mode.READWRITE: step_pb2.CACHE_MODE_READWRITE,
    Mode.REFRESH: step_pb2.CACHE_MODE_REFRESH,
}
FROM_MODE = {number: mode for mode, number in MODES.items()}


def templates(found: Mapping[str, Template]) -> dict[str, step_pb2.StepTemplate]:
    """What steps do, as the cache is told."""
    return {name: template(each) for name, each in found.items()}


def template(found: Template, *, document: bool = True) -> step_pb2.StepTemplate:
    """What a step does; without its document where nobody needs it."""
    policy = found.policy
    shown = step_pb2.CachePolicy(
        mode=MODES[policy.mode], ignore_inputs=policy.ignore_inputs, side_effects=policy.side_effects
    )
    if policy.ttl is not None:
        shown.ttl.CopyFrom(duration(policy.ttl))
    return step_pb2.StepTemplate(
        name=found.name,
        document=found.document if document else "{}",
        policy=shown,
        uncacheable_reason=found.uncacheable,
    )


FROM_VERDICT = {
    step_pb2.VERDICT_HIT: Verdict.HIT,
    step_pb2.VERDICT_MISS: Verdict.MISS,
    step_pb2.VERDICT_UNKNOWN: Verdict.UNKNOWN,
    step_pb2.VERDICT_UNCACHEABLE: Verdict.UNCACHEABLE,
    step_pb2.VERDICT_SKIPPED: Verdict.SKIPPED,
}
VERDICTS = {verdict: number for number, verdict in FROM_VERDICT.items()}
STEP_PHASES = {
    Phase.PENDING: step_pb2.STEP_PHASE_PENDING,
    Phase.RUNNING: step_pb2.STEP_PHASE_RUNNING,
    Phase.SUCCEEDED: step_pb2.STEP_PHASE_SUCCEEDED,
    Phase.FAILED: step_pb2.STEP_PHASE_FAILED,
    Phase.ERROR: step_pb2.STEP_PHASE_ERROR,
    Phase.SKIPPED: step_pb2.STEP_PHASE_SKIPPED,
    Phase.CACHED: step_pb2.STEP_PHASE_CACHED,
}
RUN_PHASES = {
    Phase.PENDING: step_pb2.RUN_PHASE_PENDING,
    Phase.RUNNING: step_pb2.RUN_PHASE_RUNNING,
    Phase.SUCCEEDED: step_pb2.RUN_PHASE_SUCCEEDED,
    Phase.FAILED: step_pb2.RUN_PHASE_FAILED,
    Phase.ERROR: step_pb2.RUN_PHASE_ERROR,
    Phase.CANCELLED: step_pb2.RUN_PHASE_CANCELLED,
}


def run_phase(phase: Phase) -> step_pb2.RunPhase.ValueType:
    """How far a run is."""
    return RUN_PHASES[phase]


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


def inputs(found: Inputs) -> step_pb2.Inputs:
    return step_pb2.Inputs(
        parameters=parameters(found.parameters),
        artifacts=[_artifact(artifact) for artifact in found.artifacts],
    )


def _artifact(artifact: Artifact) -> step_pb2.Artifact:
    return step_pb2.Artifact(
        name=artifact.name,
        object=object_ref(artifact.object),
        digest=artifact.digest,
        size_bytes=artifact.size,
    )


def object_ref(place: Object) -> step_pb2.ObjectRef:
    return step_pb2.ObjectRef(key=place.key, bucket=place.bucket, endpoint=place.endpoint)


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
