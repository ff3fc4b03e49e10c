"""A plan for people: what is known of each step, and what that saves."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from periplus.sdk.cli.document import verdict
from periplus.sdk.cli.folding import folded
from periplus.sdk.cli.text import counted, line, seconds, table

if TYPE_CHECKING:
    from periplus.dispatcher.v1.dispatcher_pb2 import Plan, PlannedStep

HIT = 1
_SAYS = {
    "hit": "cached",
    "miss": "to run",
    "unknown": "decided mid-run",
    "uncacheable": "to run and not cacheable",
    "skipped": "skipped",
}


def told(plan: Plan, width: int) -> list[str]:
    """One line a step, items of a fan-out with the same verdict together, and the sum."""
    folds = folded(plan.steps, lambda step: step.path, lambda step: (step.verdict, step.template))
    rows = []
    for fold in folds:
        first = fold.members[0]
        times = f" x{len(fold.members)}" if len(fold.members) > 1 else ""
        saved = sum(span(step) for step in fold.members)
        rows.append([fold.name, verdict(first.verdict) + times, seconds(saved) if saved else "", _why(first)])
    return [*table(("STEP", "CACHE", "SAVES", "WHY"), rows, width), "", summary(plan)]


def span(step: PlannedStep) -> float:
    """The time that a hit saves, in seconds."""
    return step.saved.seconds + step.saved.nanos / 1e9


def _why(step: PlannedStep) -> str:
    made = f"made by {line(step.producer_run)}" if step.verdict == HIT and step.producer_run else ""
    return step.reason or made


def summary(plan: Plan) -> str:
    """As in: 12 steps: 9 cached, 3 to run; saves 41 s."""
    counts = Counter(verdict(step.verdict) for step in plan.steps)
    parts = [f"{counts[name]:,} {says}" for name, says in _SAYS.items() if counts[name]]
    saved = plan.saved.seconds + plan.saved.nanos / 1e9
    told = f"{counted(len(plan.steps), 'step')}: {', '.join(parts) or 'nothing to do'}"
    return f"{told}; saves {seconds(saved)}" if saved else told
