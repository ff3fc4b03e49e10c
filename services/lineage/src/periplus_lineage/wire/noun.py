"""The nouns that services share, both directions: parameters, artifacts, inputs, outputs."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from periplus.dispatcher.v1.events_pb2 import RunFinished, StepFinished
from periplus.types.v1 import step_pb2 as types
from periplus_lineage.domain.run import Artifact, Inputs, Outputs, Parameter

_LONG = 10**15  # microseconds; 31 years

Digests = Mapping[tuple[bool, str, str], tuple[str, int]]
"""Digest and size by (made by the step, name, key): what was told apart from the artifact itself."""


def parameters(given: Iterable[types.Parameter]) -> tuple[Parameter, ...]:
    """Parameters of the contract as ours."""
    return tuple(Parameter(p.name, p.value) for p in given)


def artifacts(given: Iterable[types.Artifact], digests: Digests, *, made: bool) -> tuple[Artifact, ...]:
    """Artifacts of the contract as ours, with the digests that are known of them."""
    return tuple(_artifact(a, *digests.get((made, a.name, a.object.key), ("", 0))) for a in given)


def _artifact(given: types.Artifact, digest: str, size: int) -> Artifact:
    ref = given.object
    return Artifact(
        given.name, ref.endpoint, ref.bucket, ref.key, given.digest or digest, given.size_bytes or size
    )


def inputs(given: types.Inputs, digests: Digests) -> Inputs:
    """What a step was given."""
    return Inputs(parameters(given.parameters), artifacts(given.artifacts, digests, made=False))


def outputs(given: types.Outputs, digests: Digests) -> Outputs:
    """What a step gave."""
    return Outputs(
        parameters(given.parameters),
        artifacts(given.artifacts, digests, made=True),
        given.result if given.HasField("result") else None,
        given.exit_code if given.HasField("exit_code") else None,
    )


def micros(event: RunFinished | StepFinished) -> int:
    """The microseconds that were saved, as far as a sum of them and a date can hold them."""
    saved = event.saved
    return (
        min(max(saved.seconds * 1_000_000 + saved.nanos // 1000, 0), _LONG) if event.HasField("saved") else 0
    )


def to_parameters(known: Iterable[Parameter]) -> list[types.Parameter]:
    """Our parameters as those of the contract."""
    return [types.Parameter(name=p.name, value=p.value) for p in known]


def to_artifact(known: Artifact) -> types.Artifact:
    """Our artifact as that of the contract."""
    ref = types.ObjectRef(endpoint=known.endpoint, bucket=known.bucket, key=known.key)
    return types.Artifact(name=known.name, object=ref, digest=known.digest, size_bytes=known.size)


def to_inputs(known: Inputs) -> types.Inputs:
    """What a step was given."""
    return types.Inputs(
        parameters=to_parameters(known.parameters), artifacts=[to_artifact(a) for a in known.artifacts]
    )


def to_outputs(known: Outputs) -> types.Outputs:
    """What a step gave."""
    return types.Outputs(
        parameters=to_parameters(known.parameters),
        artifacts=[to_artifact(a) for a in known.artifacts],
        result=known.result,
        exit_code=known.exit_code,
    )


def to_time(known: datetime | None) -> Timestamp | None:
    """A point in time; absent where there is none."""
    if known is None:
        return None
    stamp = Timestamp()
    stamp.FromDatetime(known.astimezone(UTC))
    return stamp


def to_duration(known: timedelta | None) -> Duration | None:
    """A span of time; absent where there is none."""
    if known is None:
        return None
    span = Duration()
    span.FromTimedelta(known)
    return span
