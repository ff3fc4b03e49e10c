"""The events that tell of runs and steps: domain → proto."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from google.protobuf.message import Message

from periplus.dispatcher.v1 import events_pb2
from periplus.types.v1 import step_pb2
from periplus_common import bus
from periplus_common.digest import sha256
from periplus_dispatcher.domain import Mode, Phase, Template, Verdict
from periplus_dispatcher.observe import Seen, planned
from periplus_dispatcher.record import Run
from periplus_dispatcher.wire.step import (
    MODES,
    STEP_PHASES,
    VERDICTS,
    duration,
    inputs,
    outputs,
    parameters,
    run_phase,
    template,
    timestamp,
)

Json = dict[str, Any]

LARGEST = 1_000_000  # bytes of an event; a message of NATS holds 1 MiB with its headers


def run_submitted(run: Run, nodes: Sequence[Json]) -> bus.CloudEvent:
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
                depends_on=node["depends_on"],
                verdict=VERDICTS[Verdict(node["verdict"])],
                reason=node["reason"],
            )
            for node in nodes
        ],
        manifest_digest=sha256(run.source.encode()),
        submitted_at=timestamp(run.submitted_at),
    )
    if message.ByteSize() > LARGEST:
        for step in message.steps:
            step.ClearField("reason")
    _fit(message, "steps", "parameters")
    return bus.cloud_event(message, project=run.project, run=run.id, key="submitted", at=run.submitted_at)


def run_finished(run: Run, cached: int, saved: float) -> bus.CloudEvent:
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
    _fit(message, "outputs", "message")
    return bus.cloud_event(message, project=run.project, run=run.id, key="finished", at=run.finished_at)


def step_event(run: Run, seen: Seen) -> bus.CloudEvent:
    """The event that tells how far a step is."""
    at = seen.finished_at or seen.started_at or datetime.now(UTC)
    if seen.phase is Phase.RUNNING:
        started = events_pb2.StepStarted(
            project=run.project, run=run.id, step=seen.path, template=seen.template, node=seen.node,
            started_at=timestamp(seen.started_at),
        )  # fmt: skip
        return bus.cloud_event(started, project=run.project, run=run.id, key=seen.path, at=at)
    return bus.cloud_event(_finished(run, seen), project=run.project, run=run.id, key=seen.path, at=at)


def _finished(run: Run, seen: Seen) -> events_pb2.StepFinished:
    described = run.record.templates.get(seen.template) or Template(seen.template or seen.path, "{}")
    ran = seen.phase in (Phase.SUCCEEDED, Phase.FAILED, Phase.ERROR)
    message = events_pb2.StepFinished(
        project=run.project,
        run=run.id,
        step=seen.path,
        template=template(described, document=ran),
        node=seen.node,
        phase=STEP_PHASES[seen.phase],
        message=seen.message,
        inputs=inputs(seen.inputs),
        outputs=outputs(seen.outputs),
        started_at=timestamp(seen.started_at),
        finished_at=timestamp(seen.finished_at),
        verdict=VERDICTS[_verdict(run, seen.path)],
        attempts=seen.attempts,
        snapshot=run.snapshot,
        cache_mode=MODES[Mode(run.cache)] if run.cache else step_pb2.CACHE_MODE_UNSPECIFIED,
    )
    if found := seen.resolved:
        message.verdict = step_pb2.VERDICT_HIT
        message.fingerprint = found.fingerprint
        message.producer_run, message.producer_step = found.run, found.step
        message.saved.CopyFrom(duration(found.saved))
    if _fit(message, "inputs", "outputs", "message"):
        message.template.document = "{}"
        message.template.uncacheable_reason = "what it was given and gave is too large to be told"
    return message


def _fit(message: Message, *fields: str) -> bool:
    """Leave out fields until NATS takes the message: that something happened is worth more than all its values."""
    left_out = False
    for field in fields:
        if message.ByteSize() > LARGEST:
            message.ClearField(field)
            left_out = True
    return left_out


def _verdict(run: Run, path: str) -> Verdict:
    """What was known of a step before it ran; of an item of a fan-out, what was known of all."""
    verdicts = run.record.verdicts
    found = Verdict(verdicts.get(path) or verdicts.get(planned(path)) or "miss")
    return Verdict.MISS if found is Verdict.HIT else found  # it ran, whatever the cache had
