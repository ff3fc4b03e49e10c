"""Summaries for people: a plan before it runs, and a run that has finished."""

from __future__ import annotations

import shlex
from collections import Counter
from typing import TYPE_CHECKING

from periplus.sdk.cli.document import run_phase_name, verdict_name
from periplus.sdk.cli.terminal import say
from periplus.sdk.cli.text import counted, duration_text, group_items, one_line, table
from periplus.sdk.cli.watching import CACHED, RAN, WRONG

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from periplus.dispatcher.v1.dispatcher_pb2 import Plan, PlannedStep
    from periplus.lineage.v1.lineage_pb2 import Run, Step
    from periplus.types.v1.step_pb2 import Outputs

HIT = 1
_VERDICT_TEXTS = {
    "hit": "cached",
    "miss": "to run",
    "pending": "made by other runs",
    "unknown": "decided mid-run",
    "uncacheable": "to run and not cacheable",
    "skipped": "skipped",
}


def plan_lines(plan: Plan, width: int) -> list[str]:
    """A table with a row for each step, where items of a fan-out with the same verdict share one, and the summary."""
    groups = group_items(plan.steps, lambda step: step.path, lambda step: (step.verdict, step.template))
    rows = []
    for group in groups:
        first = group.members[0]
        times = f" x{len(group.members)}" if len(group.members) > 1 else ""
        saved = sum(_saved_seconds(step) for step in group.members)
        rows.append(
            [
                group.name,
                verdict_name(first.verdict) + times,
                duration_text(saved) if saved else "",
                _why(first),
            ]
        )
    return [*table(("STEP", "CACHE", "SAVES", "WHY"), rows, width), "", plan_summary(plan)]


def _saved_seconds(step: PlannedStep) -> float:
    """The time that a hit saves, in seconds."""
    return step.saved.seconds + step.saved.nanos / 1e9


def _why(step: PlannedStep) -> str:
    producer = (
        f"produced by {one_line(step.producer_run)}" if step.verdict == HIT and step.producer_run else ""
    )
    return step.reason or producer


def plan_summary(plan: Plan) -> str:
    """As in: 12 steps: 9 cached, 3 to run; saves 41 s."""
    counts = Counter(verdict_name(step.verdict) for step in plan.steps)
    parts = [f"{counts[name]:,} {text}" for name, text in _VERDICT_TEXTS.items() if counts[name]]
    saved = plan.saved.seconds + plan.saved.nanos / 1e9
    text = f"{counted(len(plan.steps), 'step')}: {', '.join(parts) or 'nothing to do'}"
    return f"{text}; saves {duration_text(saved)}" if saved else text


MAX_LISTED_FAILURES = 10


def run_summary(run: str, phase: int, *, ran: int, cached: int, saved: float, took: float) -> str:
    """As in: run digits-x2 succeeded in 12 s: 3 steps ran, 9 cached (41 s saved)."""
    served = f"{cached:,} cached" + (f" ({duration_text(saved)} saved)" if saved else "")
    return f"run {one_line(run)} {run_phase_name(phase)} in {duration_text(took)}: {counted(ran, 'step')} ran, {served}"


def step_counts(steps: Sequence[Step]) -> tuple[int, int, float]:
    """The number of steps that ran, the number that were cached, and the seconds that these saved."""
    ran = sum(step.phase in RAN for step in steps)
    cached = [step for step in steps if step.phase == CACHED]
    return ran, len(cached), sum(step.saved.seconds + step.saved.nanos / 1e9 for step in cached)


def output_lines(outputs: Outputs, width: int) -> Iterator[str]:
    """One line for each output of a workflow or a step."""
    for parameter in outputs.parameters:
        yield one_line(f"  {one_line(parameter.name)} = {one_line(parameter.value)}", width)
    for artifact in outputs.artifacts:
        where = artifact.object.key
        yield one_line(f"  {one_line(artifact.name)} : {one_line(where)} {one_line(artifact.digest)}", width)
    if outputs.HasField("result") and outputs.result:
        yield one_line(f"  result = {one_line(outputs.result)}", width)
    for value in outputs.omitted:
        name = one_line(value.name or "result")
        yield one_line(f"  {name} : {value.size_bytes:,} bytes, too large to be kept, {value.digest}", width)


def print_failed_steps(run: Run, steps: Sequence[Step]) -> None:
    """Print to the standard error which steps failed, and the command for their logs."""
    wrong = [step for step in steps if step.phase in WRONG]
    lines = [
        f"{step.path} failed: {step.message or 'no reason given'}" for step in wrong[:MAX_LISTED_FAILURES]
    ]
    if len(wrong) > MAX_LISTED_FAILURES:
        lines.append(f"and {len(wrong) - MAX_LISTED_FAILURES} more")
    if run.message and not wrong:
        lines.append(run.message)
    if wrong:
        lines.append(f"fix:   periplus logs {run.id} --step {shlex.quote(one_line(wrong[0].path))}")
    if lines:
        say(*(f"  {text}" for text in lines), error=True)
