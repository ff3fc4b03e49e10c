"""Protobuf ↔ domain, pure, both directions: what a step is, what it was given and what it gave."""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from periplus.cache.v1 import cache_pb2 as pb
from periplus.dispatcher.v1 import events_pb2 as dispatcher
from periplus.types.v1 import step_pb2 as types
from periplus_cache import key
from periplus_cache.domain import Artifact, Inputs, Mode, Outputs, Phase, Place, Policy, Template, Verdict
from periplus_cache.ports import Shown
from periplus_cache.recording import Finished
from periplus_common.errors import Invalid

_MODES = {
    types.CACHE_MODE_UNSPECIFIED: Mode.READWRITE,
    types.CACHE_MODE_OFF: Mode.OFF,
    types.CACHE_MODE_READ: Mode.READ,
    types.CACHE_MODE_WRITE: Mode.WRITE,
    types.CACHE_MODE_READWRITE: Mode.READWRITE,
    types.CACHE_MODE_REFRESH: Mode.REFRESH,
}
_VERDICTS = {
    types.VERDICT_UNSPECIFIED: Verdict.NONE,
    types.VERDICT_HIT: Verdict.HIT,
    types.VERDICT_MISS: Verdict.MISS,
    types.VERDICT_UNKNOWN: Verdict.UNKNOWN,
    types.VERDICT_UNCACHEABLE: Verdict.UNCACHEABLE,
    types.VERDICT_SKIPPED: Verdict.SKIPPED,
}
VERDICT_NUMBERS = {verdict: number for number, verdict in _VERDICTS.items()}
_PHASES = {
    types.STEP_PHASE_SUCCEEDED: Phase.SUCCEEDED,
    types.STEP_PHASE_FAILED: Phase.FAILED,
    types.STEP_PHASE_ERROR: Phase.ERROR,
    types.STEP_PHASE_SKIPPED: Phase.SKIPPED,
    types.STEP_PHASE_CACHED: Phase.CACHED,
}


_CENTURY = 36_525 * 86_400  # seconds
_DIGEST = re.compile(r"(sha256:[0-9a-f]{64})?", re.ASCII)


def plain(text: str, field: str) -> str:
    """A name that can be kept. Raises `Invalid` for one with U+0000, which Postgres does not take."""
    if "\0" in text:
        raise Invalid("holds the character U+0000", field=field, reason="FIELD_INVALID")
    return text


def template(message: types.StepTemplate) -> Template:
    """What a step does."""
    policy = message.policy
    return Template(
        plain(message.name, "name"),
        message.document,
        Policy(
            _MODES.get(policy.mode, Mode.READWRITE),
            span(policy.ttl) if policy.HasField("ttl") else None,
            frozenset(policy.ignore_inputs),
            policy.side_effects,
        ),
        plain(message.uncacheable_reason, "uncacheable_reason"),
    )


def place(message: types.ObjectRef) -> Place:
    """Where an object lies."""
    return Place(
        plain(message.key, "object.key"),
        plain(message.bucket, "object.bucket"),
        plain(message.endpoint, "object.endpoint"),
    )


def inputs(message: types.Inputs) -> Inputs:
    """What a step was given."""
    return Inputs(
        tuple((p.name, p.value) for p in message.parameters),
        tuple(Artifact(a.name, place(a.object)) for a in message.artifacts),
    )


def outputs(message: types.Outputs) -> Outputs:
    """What a step gave. Digests that the message names are not believed: the bytes are read."""
    return Outputs(
        tuple((p.name, p.value) for p in message.parameters),
        tuple(Artifact(a.name, place(a.object)) for a in message.artifacts),
        message.result if message.HasField("result") else None,
        message.exit_code if message.HasField("exit_code") else None,
    )


def finished(event: dispatcher.StepFinished, trace: Mapping[str, str]) -> Finished:
    """A step as the dispatcher saw it end. Raises `Invalid` for what can not be kept."""
    if event.phase not in _PHASES:
        raise Invalid(f"phase {event.phase} is none in which a step ends", field="phase")
    if not event.HasField("finished_at"):
        raise Invalid("is not given", field="finished_at")
    if not _DIGEST.fullmatch(event.fingerprint):
        raise Invalid("is no digest", field="fingerprint")
    ended = moment(event.finished_at)
    return Finished(
        plain(event.project, "project"),
        plain(event.run, "run"),
        plain(event.step, "step"),
        template(event.template),
        _PHASES[event.phase],
        _VERDICTS.get(event.verdict, Verdict.NONE),
        inputs(event.inputs),
        outputs(event.outputs),
        moment(event.started_at) if event.HasField("started_at") else ended,
        ended,
        _MODES.get(event.cache_mode) if event.cache_mode else None,
        event.message,
        event.fingerprint,
        plain(event.producer_run, "producer_run"),
        plain(event.producer_step, "producer_step"),
        span(event.saved),
        trace,
    )


def artifact_message(artifact: Artifact) -> types.Artifact:
    """An artifact, with its digest where it is known."""
    at = artifact.place
    return types.Artifact(
        name=artifact.name,
        object=types.ObjectRef(endpoint=at.endpoint, bucket=at.bucket, key=at.key),
        digest=artifact.digest,
        size_bytes=artifact.size,
    )


def outputs_message(outputs: Outputs) -> types.Outputs:
    """What a step gave."""
    return types.Outputs(
        parameters=[types.Parameter(name=name, value=value) for name, value in outputs.parameters],
        artifacts=[artifact_message(artifact) for artifact in outputs.artifacts],
        result=outputs.result,
        exit_code=outputs.exit_code,
    )


def entry_message(shown: Shown) -> pb.Entry:
    """One entry, with its key."""
    entry = shown.entry
    scope = key.Scope(entry.project, shown.epoch)
    digests = {artifact.name: artifact.digest for artifact in entry.inputs.artifacts}
    whole = key.key(scope, shown.document, dict(entry.inputs.parameters), digests)
    return pb.Entry(
        fingerprint=entry.fingerprint,
        template=entry.template,
        producer_run=entry.maker.run,
        producer_step=entry.maker.step,
        outputs=outputs_message(entry.outputs),
        recorded_at=timestamp(entry.maker.at),
        duration=duration(entry.maker.took),
        hits=shown.hits,
        key=json.dumps(whole, ensure_ascii=False),
        invalidation_reason=entry.buried,
    )


def moment(stamp: Timestamp) -> datetime:
    """A moment, in UTC. Raises `Invalid` for one that no calendar has."""
    try:
        return stamp.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise Invalid(f"is no moment: {error}", field="finished_at") from error


def span(message: Duration) -> timedelta:
    """A span, of a century at most: more is for ever, and ends no sum of it with a date."""
    seconds = max(-_CENTURY, min(message.seconds, _CENTURY))
    return timedelta(seconds=seconds, microseconds=message.nanos // 1000)


def timestamp(at: datetime) -> Timestamp:
    """A moment as a message."""
    message = Timestamp()
    message.FromDatetime(at)
    return message


def duration(span: timedelta) -> Duration:
    """A span as a message."""
    message = Duration()
    message.FromTimedelta(span)
    return message
