"""A run that has ended: what ran, what was saved, what came out, and what went wrong."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from periplus.sdk.cli.document import phase_of_run
from periplus.sdk.cli.progress import CACHED, RAN, WRONG
from periplus.sdk.cli.text import counted, line, seconds

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from periplus.lineage.v1.lineage_pb2 import Run, Step
    from periplus.types.v1.step_pb2 import Outputs

MOST = 10  # failed steps that are named


def summary(run: str, phase: int, *, ran: int, cached: int, saved: float, took: float) -> str:
    """As in: run digits-x2 succeeded in 12 s: 3 steps ran, 9 cached (41 s saved)."""
    kept = f"{cached:,} cached" + (f" ({seconds(saved)} saved)" if saved else "")
    return f"run {line(run)} {phase_of_run(phase)} in {seconds(took)}: {counted(ran, 'step')} ran, {kept}"


def counts(steps: Sequence[Step]) -> tuple[int, int, float]:
    """How many steps ran, how many were cached, and the seconds that this saved."""
    ran = sum(step.phase in RAN for step in steps)
    cached = [step for step in steps if step.phase == CACHED]
    return ran, len(cached), sum(step.saved.seconds + step.saved.nanos / 1e9 for step in cached)


def outputs(given: Outputs, width: int) -> Iterator[str]:
    """What a workflow gave, one line each."""
    for parameter in given.parameters:
        yield line(f"  {line(parameter.name)} = {line(parameter.value)}", width)
    for artifact in given.artifacts:
        where = artifact.object.key
        yield line(f"  {line(artifact.name)} : {line(where)} {line(artifact.digest)}", width)
    if given.HasField("result") and given.result:
        yield line(f"  result = {line(given.result)}", width)


def complain(run: Run, steps: Sequence[Step]) -> None:
    """Say on the standard error which steps went wrong, and how to read what they printed."""
    wrong = [step for step in steps if step.phase in WRONG]
    for step in wrong[:MOST]:
        print(f"  {line(step.path)} failed: {line(step.message) or 'no reason given'}", file=sys.stderr)
    if len(wrong) > MOST:
        print(f"  and {len(wrong) - MOST} more", file=sys.stderr)
    if run.message and not wrong:
        print(f"  {line(run.message)}", file=sys.stderr)
    if wrong:
        path = line(wrong[0].path)
        print(f"  fix:   periplus logs {line(run.id)} --step '{path}'", file=sys.stderr)
