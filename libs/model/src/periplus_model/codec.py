"""Protobuf ↔ the types of `steps` and `queries`, both directions. Services call it at their edges only.

`encode_*` gives messages, `decode_*` gives types and raises `Invalid` with the name of the field.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from periplus.cache.v1 import cache_pb2
from periplus.types.v1 import step_pb2
from periplus_common.errors import Invalid
from periplus_model.queries import (
    ArtifactSource,
    Item,
    Lease,
    LeaseMode,
    Literal,
    OutputRef,
    Raw,
    StepQuery,
    StepVerdict,
    Text,
    TextPart,
    Unknown,
)
from periplus_model.steps import (
    Artifact,
    CacheMode,
    CachePolicy,
    Inputs,
    ObjectRef,
    OmittedValue,
    Outputs,
    RunPhase,
    StepPhase,
    StepTemplate,
    Verdict,
)

MAX_REASON_CHARACTERS = 1024
"""The contract's bound of an uncacheable_reason. A longer one is shortened: it must not refuse a whole request."""
MAX_DURATION = timedelta(days=36_525)
"""A century. Longer durations are shortened to it, so that no sum of one with a date overflows."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_ContractEnum = TypeVar("_ContractEnum", StepPhase, RunPhase, Verdict, CacheMode)


def decode_name(text: str, field: str) -> str:
    """A text that Postgres can store. Raises `Invalid` if it contains U+0000."""
    if "\0" in text:
        raise Invalid("contains the character U+0000", field=field, reason="FIELD_INVALID")
    return text


def decode_enum(kind: type[_ContractEnum], number: int, field: str) -> _ContractEnum:
    """The member with this number. Raises `Invalid`."""
    try:
        return kind(number)
    except ValueError:
        raise Invalid(f"{number} is not a {kind.__name__}", field=field, reason="FIELD_INVALID") from None


def decode_run_mode(number: int) -> CacheMode | None:
    """A run's cache mode; None if it is unspecified."""
    return decode_enum(CacheMode, number, "cache_mode") if number else None


def encode_run_mode(mode: CacheMode | None) -> step_pb2.CacheMode.ValueType:
    return step_pb2.CacheMode.ValueType(mode or 0)


# Times


def decode_time(message: Timestamp, field: str) -> datetime:
    """A point in time, in UTC. Raises `Invalid` if it is outside of the years 1 to 9999."""
    nanos = message.nanos
    try:
        if not 0 <= nanos < 1_000_000_000:
            raise ValueError(f"{nanos} nanoseconds are not a part of a second")
        # By hand, as the message's own ToDatetime takes thrice as long, and every event has some.
        return _EPOCH + timedelta(seconds=message.seconds, microseconds=nanos // 1000)
    except (ValueError, OverflowError) as error:
        raise Invalid(f"is not a point in time: {error}", field=field, reason="FIELD_INVALID") from error


def encode_time(at: datetime | None) -> Timestamp | None:
    """A point in time; None stays absent."""
    if at is None:
        return None
    message = Timestamp()
    message.FromDatetime(at.astimezone(UTC))
    return message


def decode_duration(message: Duration) -> timedelta:
    """A duration, to the microsecond, between plus and minus `MAX_DURATION`."""
    bound = int(MAX_DURATION.total_seconds())
    seconds = max(-bound, min(message.seconds, bound))
    return timedelta(seconds=seconds, microseconds=message.nanos // 1000)


def encode_duration(duration: timedelta | None) -> Duration | None:
    """A duration; None stays absent."""
    if duration is None:
        return None
    message = Duration()
    message.FromTimedelta(duration)
    return message


# Steps


def decode_template(message: step_pb2.StepTemplate) -> StepTemplate:
    policy = message.policy
    return StepTemplate(
        name=decode_name(message.name, "name"),
        document=message.document,
        policy=CachePolicy(
            mode=decode_enum(CacheMode, policy.mode, "policy.mode") if policy.mode else CacheMode.READWRITE,
            ttl=decode_duration(policy.ttl) if policy.HasField("ttl") else None,
            ignore_inputs=frozenset(policy.ignore_inputs),
            side_effects=policy.side_effects,
            stop_on_divergence=policy.stop_on_divergence,
        ),
        uncacheable_reason=decode_name(message.uncacheable_reason, "uncacheable_reason"),
    )


def encode_template(template: StepTemplate, *, with_document: bool = True) -> step_pb2.StepTemplate:
    """A template; `with_document=False` replaces its document by an empty object."""
    policy = template.policy
    return step_pb2.StepTemplate(
        name=template.name,
        document=template.document if with_document else "{}",
        policy=step_pb2.CachePolicy(
            mode=step_pb2.CacheMode.ValueType(policy.mode),
            ttl=encode_duration(policy.ttl),
            ignore_inputs=sorted(policy.ignore_inputs),
            side_effects=policy.side_effects,
            stop_on_divergence=policy.stop_on_divergence,
        ),
        uncacheable_reason=_shortened(template.uncacheable_reason),
    )


def _shortened(reason: str) -> str:
    return reason if len(reason) <= MAX_REASON_CHARACTERS else reason[: MAX_REASON_CHARACTERS - 1] + "…"


def decode_object(message: step_pb2.ObjectRef) -> ObjectRef:
    return ObjectRef(
        key=decode_name(message.key, "object.key"),
        bucket=decode_name(message.bucket, "object.bucket"),
        endpoint=decode_name(message.endpoint, "object.endpoint"),
    )


def encode_object(ref: ObjectRef) -> step_pb2.ObjectRef:
    return step_pb2.ObjectRef(endpoint=ref.endpoint, bucket=ref.bucket, key=ref.key)


def decode_artifact(message: step_pb2.Artifact) -> Artifact:
    return Artifact(
        name=message.name,
        object=decode_object(message.object),
        digest=message.digest,
        size_bytes=message.size_bytes,
        etag=message.etag,
    )


def encode_artifact(artifact: Artifact) -> step_pb2.Artifact:
    return step_pb2.Artifact(
        name=artifact.name,
        object=encode_object(artifact.object),
        digest=artifact.digest,
        size_bytes=artifact.size_bytes,
        etag=artifact.etag,
    )


def decode_parameters(messages: Iterable[step_pb2.Parameter]) -> dict[str, str]:
    """Values by name, in order."""
    return {message.name: message.value for message in messages}


def encode_parameters(parameters: Mapping[str, str]) -> list[step_pb2.Parameter]:
    return [step_pb2.Parameter(name=name, value=value) for name, value in parameters.items()]


def decode_inputs(message: step_pb2.Inputs) -> Inputs:
    return Inputs(
        parameters=decode_parameters(message.parameters),
        artifacts=tuple(map(decode_artifact, message.artifacts)),
        discovered=dict(message.discovered),
        omitted=decode_omitted(message.omitted),
    )


def decode_omitted(messages: Iterable[step_pb2.OmittedValue]) -> dict[str, OmittedValue]:
    return {message.name: OmittedValue(message.digest, message.size_bytes) for message in messages}


def encode_omitted(omitted: Mapping[str, OmittedValue]) -> list[step_pb2.OmittedValue]:
    return [
        step_pb2.OmittedValue(name=name, digest=value.digest, size_bytes=value.size_bytes)
        for name, value in omitted.items()
    ]


def encode_inputs(inputs: Inputs) -> step_pb2.Inputs:
    return step_pb2.Inputs(
        parameters=encode_parameters(inputs.parameters),
        artifacts=map(encode_artifact, inputs.artifacts),
        discovered=inputs.discovered,
        omitted=encode_omitted(inputs.omitted),
    )


def decode_outputs(message: step_pb2.Outputs) -> Outputs:
    return Outputs(
        parameters=decode_parameters(message.parameters),
        artifacts=tuple(map(decode_artifact, message.artifacts)),
        result=message.result if message.HasField("result") else None,
        exit_code=message.exit_code if message.HasField("exit_code") else None,
        omitted=decode_omitted(message.omitted),
    )


def encode_outputs(outputs: Outputs) -> step_pb2.Outputs:
    return step_pb2.Outputs(
        parameters=encode_parameters(outputs.parameters),
        artifacts=map(encode_artifact, outputs.artifacts),
        result=outputs.result,
        exit_code=outputs.exit_code,
        omitted=encode_omitted(outputs.omitted),
    )


# Queries and verdicts


def decode_text(message: cache_pb2.Text) -> Text:
    return tuple(map(_decode_part, message.parts))


def encode_text(text: Text) -> cache_pb2.Text:
    return cache_pb2.Text(parts=map(_encode_part, text))


def _decode_part(message: cache_pb2.TextPart) -> TextPart:
    match message.WhichOneof("kind"):
        case "literal":
            return Literal(message.literal)
        case "output":
            return _decode_output_ref(message.output)
        case "item":
            return Item(message.item)
        case _:
            return Unknown(message.unknown)


def _encode_part(part: TextPart) -> cache_pb2.TextPart:
    match part:
        case Literal(text):
            return cache_pb2.TextPart(literal=text)
        case OutputRef():
            return cache_pb2.TextPart(output=_encode_output_ref(part))
        case Item(member):
            return cache_pb2.TextPart(item=member)
        case Unknown(description):
            return cache_pb2.TextPart(unknown=description)


def _decode_output_ref(message: cache_pb2.OutputRef) -> OutputRef:
    return OutputRef(step=message.step, name=message.name, result=message.result)


def _encode_output_ref(ref: OutputRef) -> cache_pb2.OutputRef:
    return cache_pb2.OutputRef(step=ref.step, name=ref.name, result=ref.result)


def _decode_source(message: cache_pb2.ArtifactSource) -> ArtifactSource:
    match getattr(message, "WhichOneof")("from"):  # noqa: B009  # `from` is a keyword, which the stubs can not name
        case "output":
            return _decode_output_ref(message.output)
        case "object":
            return decode_object(message.object)
        case "raw":
            return Raw(message.raw)
        case _:
            return Unknown(message.unknown)


def _encode_source(name: str, source: ArtifactSource) -> cache_pb2.ArtifactSource:
    match source:
        case OutputRef():
            return cache_pb2.ArtifactSource(name=name, output=_encode_output_ref(source))
        case ObjectRef():
            return cache_pb2.ArtifactSource(name=name, object=encode_object(source))
        case Raw(text):
            return cache_pb2.ArtifactSource(name=name, raw=text)
        case Unknown(description):
            return cache_pb2.ArtifactSource(name=name, unknown=description)


def decode_query(message: cache_pb2.StepQuery) -> StepQuery:
    return StepQuery(
        id=message.id,
        template=message.template,
        parameters={p.name: decode_text(p.value) for p in message.parameters},
        artifacts={a.name: _decode_source(a) for a in message.artifacts},
        items=decode_text(message.items) if message.HasField("items") else None,
        step=decode_name(message.step, "step"),
        lease=LeaseMode(message.lease),
        planned_fingerprint=message.planned_fingerprint,
    )


def encode_query(query: StepQuery) -> cache_pb2.StepQuery:
    return cache_pb2.StepQuery(
        id=query.id,
        template=query.template,
        parameters=[
            cache_pb2.ParameterSource(name=name, value=encode_text(text))
            for name, text in query.parameters.items()
        ],
        artifacts=[_encode_source(name, source) for name, source in query.artifacts.items()],
        items=encode_text(query.items) if query.items is not None else None,
        step=query.step,
        lease=cache_pb2.LeaseMode.ValueType(query.lease),
        planned_fingerprint=query.planned_fingerprint,
    )


def decode_verdict(message: cache_pb2.StepVerdict) -> StepVerdict:
    """A verdict. Raises `Invalid` for a verdict that is not one of `Verdict` and for a hit without outputs."""
    if message.verdict == step_pb2.VERDICT_HIT and not message.HasField("outputs"):
        raise Invalid("is absent from a hit", field="outputs")
    return StepVerdict(
        id=message.id,
        verdict=decode_enum(Verdict, message.verdict, "verdict"),
        reason=message.reason,
        fingerprint=message.fingerprint,
        outputs=decode_outputs(message.outputs) if message.HasField("outputs") else None,
        producer_run=message.producer_run,
        producer_step=message.producer_step,
        saved=decode_duration(message.saved),
        items=tuple(map(decode_verdict, message.items)),
        items_json=message.items_json,
        lease=_decode_lease(message.lease) if message.HasField("lease") else None,
        planned_fingerprint=message.planned_fingerprint,
    )


def encode_verdict(verdict: StepVerdict) -> cache_pb2.StepVerdict:
    return cache_pb2.StepVerdict(
        id=verdict.id,
        verdict=step_pb2.Verdict.ValueType(verdict.verdict),
        reason=verdict.reason,
        fingerprint=verdict.fingerprint,
        outputs=encode_outputs(verdict.outputs) if verdict.outputs is not None else None,
        producer_run=verdict.producer_run,
        producer_step=verdict.producer_step,
        saved=encode_duration(verdict.saved) if verdict.saved else None,
        items=map(encode_verdict, verdict.items),
        items_json=verdict.items_json,
        lease=_encode_lease(verdict.lease) if verdict.lease is not None else None,
        planned_fingerprint=verdict.planned_fingerprint,
    )


def _decode_lease(message: cache_pb2.Lease) -> Lease:
    return Lease(message.token, message.run, message.step, decode_time(message.acquired_at, "acquired_at"))


def _encode_lease(lease: Lease) -> cache_pb2.Lease:
    return cache_pb2.Lease(
        token=lease.token, run=lease.run, step=lease.step, acquired_at=encode_time(lease.acquired_at)
    )
