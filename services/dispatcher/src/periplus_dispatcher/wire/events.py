"""The events of runs and steps."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from google.protobuf.internal.containers import RepeatedCompositeFieldContainer
from google.protobuf.message import Message

from periplus.dispatcher.v1 import events_pb2
from periplus.types.v1 import step_pb2
from periplus_common import bus
from periplus_common.digest import sha256
from periplus_dispatcher.domain import Delay, ImageDrift, Run, StepNode, StepStatus, plan_path
from periplus_dispatcher.wire.runs import encode_phase, encode_workflow
from periplus_model import codec
from periplus_model.steps import MAX_PLAIN_CHARACTERS, StepPhase, StepTemplate, Verdict

MAX_EVENT_BYTES = 1_000_000
"""NATS takes messages of up to 1 MiB, headers included."""
MAX_VALUE_BYTES = 262_144
"""The contract's bound of a value. A larger one is omitted, and the event has its digest."""


def run_submitted(run: Run, nodes: Sequence[StepNode]) -> bus.CloudEvent:
    message = events_pb2.RunSubmitted(
        project=run.project,
        run=run.id,
        pipeline=run.pipeline,
        snapshot=run.snapshot,
        parameters=codec.encode_parameters(run.parameters),
        steps=[
            events_pb2.StepNode(
                path=node.path,
                template=node.template,
                depends_on=node.depends_on,
                verdict=step_pb2.Verdict.ValueType(node.verdict),
                reason=node.reason,
            )
            for node in nodes
        ],
        manifest_digest=sha256(run.source.encode()),
        submitted_at=codec.encode_time(run.submitted_at),
        observed=_observed(run),
        reproduces=run.reproduces.run if run.reproduces else "",
        reproduced_step=run.reproduces.step if run.reproduces else "",
        rolled_back_to=run.rolled_back_to,
    )
    if message.ByteSize() > MAX_EVENT_BYTES:
        for step in message.steps:
            step.ClearField("reason")
    _omit_large(message, message.parameters, message.omitted_parameters)
    _clear_until_it_fits(message, "steps", "parameters")
    return bus.cloud_event(message, project=run.project, run=run.id, key="submitted", at=run.submitted_at)


def run_finished(run: Run, finished_steps: int, cached_steps: int, saved: timedelta) -> bus.CloudEvent:
    assert run.finished_at is not None
    message = events_pb2.RunFinished(
        project=run.project,
        run=run.id,
        phase=encode_phase(run.phase),
        message=run.message,
        outputs=codec.encode_outputs(run.outputs),
        pipeline=run.pipeline,
        submitted_at=codec.encode_time(run.submitted_at),
        finished_at=codec.encode_time(run.finished_at),
        cached_steps=cached_steps,
        saved=codec.encode_duration(saved),
        finished_steps=finished_steps,
        reproduces=run.reproduces.run if run.reproduces else "",
    )
    _omit_large(message, message.outputs.parameters, message.outputs.omitted)
    _clear_until_it_fits(message, "outputs", "message")
    return bus.cloud_event(message, project=run.project, run=run.id, key="finished", at=run.finished_at)


def step_event(run: Run, step: StepStatus) -> bus.CloudEvent:
    """StepStarted for a running step, else StepFinished."""
    message: Message
    if step.phase is StepPhase.RUNNING:
        message = events_pb2.StepStarted(
            project=run.project,
            run=run.id,
            step=step.path,
            template=_template(run, step).name,
            node=step.node,
            started_at=codec.encode_time(step.started_at),
        )
    else:
        message = _step_finished(run, step)
    at = step.finished_at or step.started_at or datetime.now(UTC)
    key = f"{step.path}/{step.outer_attempt}" if step.outer_attempt else step.path
    return bus.cloud_event(message, project=run.project, run=run.id, key=key, at=at)


def step_delayed(run: Run, delay: Delay, number: int, at: datetime) -> bus.CloudEvent:
    """The `number`-th change of what delays a step."""
    message = events_pb2.StepDelayed(
        project=run.project,
        run=run.id,
        step=delay.path,
        template=delay.template,
        node=delay.node,
        reason=delay.reason,
        observed_at=codec.encode_time(at),
    )
    return bus.cloud_event(message, project=run.project, run=run.id, key=f"{delay.path}/{number}", at=at)


def image_drifted(run: Run, step: StepStatus, drift: ImageDrift) -> bus.CloudEvent:
    at = step.finished_at or datetime.now(UTC)
    message = events_pb2.ImageDrifted(
        project=run.project,
        run=run.id,
        step=step.path,
        template=step.template,
        node=step.pod,
        container=drift.container,
        image=drift.image,
        expected_digest=drift.expected,
        actual_digest=drift.actual,
        finished_at=codec.encode_time(at),
    )
    key = f"{step.path}/{step.pod}/{drift.container}"
    return bus.cloud_event(message, project=run.project, run=run.id, key=key, at=at)


def step_events(run: Run, step: StepStatus) -> list[bus.CloudEvent]:
    """The event of a status, and one for each image that differs."""
    return [step_event(run, step), *(image_drifted(run, step, drift) for drift in step.drifts)]


def _step_finished(run: Run, step: StepStatus) -> events_pb2.StepFinished:
    template = _template(run, step)
    ran = step.phase in (StepPhase.SUCCEEDED, StepPhase.FAILED, StepPhase.ERROR)
    message = events_pb2.StepFinished(
        project=run.project,
        run=run.id,
        step=step.path,
        template=codec.encode_template(template, with_document=ran),
        node=step.node,
        phase=step_pb2.StepPhase.ValueType(step.phase),
        message=step.message,
        inputs=codec.encode_inputs(step.inputs),
        outputs=codec.encode_outputs(step.outputs),
        started_at=codec.encode_time(step.started_at),
        finished_at=codec.encode_time(_finished_at(step)),
        verdict=step_pb2.Verdict.ValueType(_verdict(run, step)),
        attempts=step.attempts,
        snapshot=run.snapshot,
        cache_mode=codec.encode_run_mode(run.cache_mode),
        observed=run.is_only_observed,
        pipeline=run.pipeline,
        host=step.host,
        unserved_reason=step.unserved_reason,
        lease_token=step.lease_token,
    )
    if step.uncacheable_reason and not message.template.uncacheable_reason:
        message.template.uncacheable_reason = step.uncacheable_reason
    if hit := step.verdict:
        message.fingerprint = hit.fingerprint
        message.producer_run, message.producer_step = hit.producer_run, hit.producer_step
        message.saved.FromTimedelta(hit.saved)
    if len(step.outputs.result or "") and len(message.outputs.result.encode()) > MAX_VALUE_BYTES:
        message.outputs.omitted.append(_omitted("", message.outputs.result))
        message.outputs.ClearField("result")
    # Inputs first: the key has the digests of large ones, and a step whose outputs are omitted is not cached.
    _omit_large(message, message.inputs.parameters, message.inputs.omitted)
    _omit_large(message, message.outputs.parameters, message.outputs.omitted)
    if _clear_until_it_fits(message, "inputs", "outputs", "message"):
        message.template.document = "{}"
        message.template.uncacheable_reason = "its inputs and outputs are too large for an event"
    return message


def _finished_at(step: StepStatus) -> datetime | None:
    """When it finished. Of two attempts of the DAG around it the later one counts: Argo's times are whole seconds, so those of
    one second differ by a microsecond.
    """
    return step.finished_at and step.finished_at + timedelta(microseconds=step.outer_attempt)


def _template(run: Run, step: StepStatus) -> StepTemplate:
    """What a step does, under the name that people know."""
    described = run.state.templates.get(step.template)
    template = described.step if described else StepTemplate(step.template or step.path, "{}")
    document = step.document or template.document
    return replace(template, name=step.component or template.name, document=document)


def _observed(run: Run) -> step_pb2.ObservedWorkflow | None:
    return encode_workflow(run.observed) if run.observed else None


def _verdict(run: Run, step: StepStatus) -> Verdict:
    """The verdict at submission; of an item, if it was not known then, the verdict of its fan-out. The cache is not asked for a
    run that is only observed.
    """
    if run.is_only_observed:
        return Verdict.UNSPECIFIED
    if step.verdict:
        return Verdict.HIT
    verdicts = run.state.verdicts
    found = verdicts.get(step.path) or verdicts.get(plan_path(step.path)) or Verdict.MISS
    return Verdict.MISS if found is Verdict.HIT else found  # it was executed nevertheless


def _omit_large(
    message: Message,
    values: RepeatedCompositeFieldContainer[step_pb2.Parameter],
    omitted: RepeatedCompositeFieldContainer[step_pb2.OmittedValue],
) -> None:
    """Omit the values of a message that the contract does not take, and the largest ones until NATS takes the message.

    Only values of more than `MAX_PLAIN_CHARACTERS` are: without others, the key of a step would not be known.
    """
    large = [value for value in values if len(value.value) > MAX_PLAIN_CHARACTERS]
    for value in sorted(large, key=lambda each: len(each.value), reverse=True):
        if len(value.value.encode()) > MAX_VALUE_BYTES or message.ByteSize() > MAX_EVENT_BYTES:
            omitted.append(_omitted(value.name, value.value))
            values.remove(value)


def _omitted(name: str, value: str) -> step_pb2.OmittedValue:
    content = value.encode()
    return step_pb2.OmittedValue(name=name, digest=sha256(content), size_bytes=len(content))


def _clear_until_it_fits(message: Message, *fields: str) -> bool:
    """Clear fields, in this order, until NATS takes the message. Whether one was cleared.

    An event without values is better than none.
    """
    cleared = False
    for field in fields:
        if message.ByteSize() > MAX_EVENT_BYTES:
            message.ClearField(field)
            cleared = True
    return cleared
