"""Runs and steps as responses. What does not fit into a message is left out."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from periplus.lineage.v1 import lineage_pb2 as pb
from periplus.types.v1 import step_pb2
from periplus_lineage.runs.model import Run, RunWithSteps, Step
from periplus_lineage.runs.reproduction import MAX_COMPARISONS, Grade, GradedReproduction
from periplus_model import codec

MAX_DETAILS_BYTES = 24 << 20
"""What inputs and outputs may take of a message, which holds 32 MiB."""
M = TypeVar("M", pb.Run, pb.Step)
_LEFT_OUT = "Its inputs and outputs are left out: with them, this response would be too large."


def encode_run(run: Run, steps: Iterable[pb.Step] = ()) -> pb.Run:
    return pb.Run(
        project=run.project,
        id=run.id,
        pipeline=run.pipeline,
        phase=step_pb2.RunPhase.ValueType(run.phase),
        message=run.message,
        snapshot=run.snapshot,
        parameters=codec.encode_parameters(run.parameters),
        outputs=codec.encode_outputs(run.outputs) if run.outputs else None,
        submitted_at=codec.encode_time(run.submitted_at),
        finished_at=codec.encode_time(run.finished_at),
        step_count=run.step_count,
        cached_steps=run.cached_steps,
        saved=codec.encode_duration(run.saved),
        steps=steps,
        reproduces=run.reproduces,
        reproduced_step=run.reproduced_step,
        rolled_back_to=run.rolled_back_to,
        observed=step_pb2.ObservedWorkflow(
            namespace=run.observed.namespace,
            name=run.observed.name,
            uid=run.observed.uid,
            display_name=run.observed.display_name,
        )
        if run.observed
        else None,
        complete=run.is_complete,
    )


def encode_step(step: Step) -> pb.Step:
    return pb.Step(
        path=step.path,
        template=step.template,
        phase=step_pb2.StepPhase.ValueType(step.phase),
        message=step.message,
        inputs=codec.encode_inputs(step.inputs),
        outputs=codec.encode_outputs(step.outputs),
        started_at=codec.encode_time(step.started_at),
        finished_at=codec.encode_time(step.finished_at),
        verdict=step_pb2.Verdict.ValueType(step.verdict),
        reason=step.reason,
        fingerprint=step.fingerprint,
        producer_run=step.producer_run,
        producer_step=step.producer_step,
        saved=codec.encode_duration(step.saved),
        attempts=step.attempts,
        depends_on=step.depends_on,
        host=step.host,
        uncacheable_reason=step.uncacheable_reason,
    )


def encode_steps(steps: Iterable[Step], max_bytes: int = MAX_DETAILS_BYTES) -> list[pb.Step]:
    """Steps of `max_bytes` together; the inputs and outputs of those that exceed it are left out, with a note."""

    def shorten(message: pb.Step) -> None:
        message.ClearField("inputs")
        message.ClearField("outputs")
        message.reason = f"{message.reason} {_LEFT_OUT}".strip()

    return list(_fitted(map(encode_step, steps), max_bytes, shorten))


def encode_run_with_steps(recorded: RunWithSteps) -> pb.Run:
    return encode_run(recorded.run, encode_steps(recorded.steps))


def encode_graded(found: GradedReproduction) -> pb.GradeReproductionResponse:
    """The grade and the comparisons, as many as fit."""
    return pb.GradeReproductionResponse(
        original=found.original,
        grade=pb.Grade.ValueType(found.grade),
        identical=found.count(Grade.IDENTICAL),
        different=found.count(Grade.DIFFERENT),
        not_comparable=found.count(Grade.NOT_COMPARABLE),
        is_pending=found.is_pending,
        outputs=[
            pb.OutputComparison(
                step=each.step,
                output=each.output,
                grade=pb.Grade.ValueType(each.grade),
                original=each.original,
                reproduced=each.reproduced,
                reason=each.reason,
            )
            for each in found.comparisons[:MAX_COMPARISONS]
        ],
    )


def encode_run_list(
    runs: Sequence[Run], next_page_token: str, max_bytes: int = MAX_DETAILS_BYTES
) -> pb.ListRunsResponse:
    """A page of runs of `max_bytes` together; parameters and outputs of those that exceed it are left out."""

    def shorten(message: pb.Run) -> None:
        message.ClearField("parameters")
        message.ClearField("outputs")

    messages = _fitted(map(encode_run, runs), max_bytes, shorten)
    return pb.ListRunsResponse(runs=messages, next_page_token=next_page_token)


def _fitted(messages: Iterable[M], max_bytes: int, shorten: Callable[[M], None]) -> Iterator[M]:
    """The messages one by one; those that exceed what the ones before leave of `max_bytes` are shortened."""
    for message in messages:
        size = message.ByteSize()
        if size <= max_bytes:
            max_bytes -= size
        else:
            shorten(message)
        yield message
