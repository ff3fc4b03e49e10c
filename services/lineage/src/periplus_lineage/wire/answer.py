"""Runs and steps as the contract tells them."""

from collections.abc import Iterable, Sequence

from periplus.lineage.v1 import lineage_pb2 as pb
from periplus.types.v1 import step_pb2 as types
from periplus_lineage.domain.run import Recorded, Run, Step
from periplus_lineage.wire import noun

ROOM = 24 << 20  # bytes of an answer that inputs and outputs may fill; a message holds 32 MiB
_LEFT_OUT = "Its inputs and outputs are left out here: with them this answer would be too large."


def to_run(known: Run, steps: Iterable[pb.Step] = ()) -> pb.Run:
    """A run, with the steps given."""
    return pb.Run(
        project=known.project,
        id=known.id,
        pipeline=known.pipeline,
        phase=types.RunPhase.ValueType(known.phase),
        message=known.message,
        snapshot=known.snapshot,
        parameters=noun.to_parameters(known.parameters),
        outputs=noun.to_outputs(known.outputs) if known.outputs else None,
        submitted_at=noun.to_time(known.submitted_at),
        finished_at=noun.to_time(known.finished_at),
        step_count=known.step_count,
        cached_steps=known.cached_steps,
        saved=noun.to_duration(known.saved),
        steps=steps,
    )


def to_step(known: Step) -> pb.Step:
    """A step."""
    return pb.Step(
        path=known.path,
        template=known.template,
        phase=types.StepPhase.ValueType(known.phase),
        message=known.message,
        inputs=noun.to_inputs(known.inputs),
        outputs=noun.to_outputs(known.outputs),
        started_at=noun.to_time(known.started_at),
        finished_at=noun.to_time(known.finished_at),
        verdict=types.Verdict.ValueType(known.verdict),
        reason=known.reason,
        fingerprint=known.fingerprint,
        producer_run=known.producer_run,
        producer_step=known.producer_step,
        saved=noun.to_duration(known.saved),
        attempts=known.attempts,
        depends_on=known.depends_on,
    )


def to_steps(known: Iterable[Step], room: int = ROOM) -> list[pb.Step]:
    """Steps whose inputs and outputs fill `room` bytes at most; those that no longer fit go without, and say so."""
    told = []
    for step in known:
        full = to_step(step)
        size = full.ByteSize()
        if size <= room:
            room -= size
        else:
            full.ClearField("inputs")
            full.ClearField("outputs")
            full.reason = f"{full.reason} {_LEFT_OUT}".strip()
        told.append(full)
    return told


def to_recorded(known: Recorded) -> pb.Run:
    """A run with its steps."""
    return to_run(known.run, to_steps(known.steps))


def to_list(known: Sequence[Run], token: str, room: int = ROOM) -> pb.ListRunsResponse:
    """A page of runs. Those that no longer fit go without parameters and outputs."""
    told = []
    for run in known:
        full = to_run(run)
        size = full.ByteSize()
        if size <= room:
            room -= size
        else:
            full.ClearField("parameters")
            full.ClearField("outputs")
        told.append(full)
    return pb.ListRunsResponse(runs=told, next_page_token=token)
