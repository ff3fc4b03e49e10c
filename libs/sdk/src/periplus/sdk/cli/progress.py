"""How far a run is: the steps as they are known, and what is to be told of each change."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from periplus.sdk.cli.document import phase_of_step
from periplus.sdk.cli.folding import folded
from periplus.sdk.cli.text import line, seconds

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp

    from periplus.lineage.v1.lineage_pb2 import Run, Step, WatchRunResponse

RUNNING = 2
RAN = (3, 4, 5)
"""StepPhase of a step that ran to its end: SUCCEEDED, FAILED, ERROR."""
WRONG = (4, 5)
CACHED = 7
# What a person looks for stays where there is no room for all: what failed, what runs, what waits.
_URGENT = {4: 0, 5: 0, 2: 1, 1: 3}


class Progress:
    """A run and its steps, brought up to date by what WatchRun tells."""

    def __init__(self) -> None:
        self.run: Run | None = None
        self._steps: dict[str, Step] = {}

    @property
    def steps(self) -> Sequence[Step]:
        """In the order in which they became known. A fan-out gives way to its items once they are known."""
        expanded = {path.rpartition("(")[0] for path in self._steps if path.endswith(")")}
        return [step for path, step in self._steps.items() if path not in expanded]

    def update(self, change: WatchRunResponse) -> list[Step]:
        """Take in a change, and return the steps whose phase is another."""
        self.run = change.run
        changed = []
        for step in change.steps:
            before = self._steps.get(step.path)
            if before is None or before.phase != step.phase:
                changed.append(step)
            self._steps[step.path] = step
        return changed

    def rows(self, height: int) -> Iterator[tuple[str, str, int, str]]:
        """Name, phases, the phase that matters most, and a word on it, on at most `height` lines."""
        folds = folded(self.steps, lambda step: step.path)
        if len(folds) > height:
            folds = folded(self.steps, lambda step: step.path, few=1)
        left = len(folds) - height + 1 if len(folds) > height else 0
        hidden = sorted(range(len(folds)), key=lambda n: _urgency(folds[n].members))[len(folds) - left :]
        for number, fold in enumerate(folds):
            if number not in hidden:
                urgent = min(fold.members, key=lambda step: _URGENT.get(step.phase, 9))
                yield line(fold.name), phases(fold.members), urgent.phase, _detail(fold.members, urgent)
        if left:
            rest = [step for number in hidden for step in folds[number].members]
            yield f"… {len(rest):,} more", phases(rest), 0, ""

    def span(self) -> float:
        """Seconds since the run was accepted, to its end or to now."""
        return span(self.run.submitted_at, self.run.finished_at) if self.run else 0.0


def _urgency(members: Sequence[Step]) -> int:
    """Lower is more urgent. A fan-out stands for many, so it goes before a single step that only waits or is done."""
    most = min(_URGENT.get(step.phase, 9) for step in members)
    return min(most, 2) if len(members) > 1 else most


def phases(steps: Iterable[Step]) -> str:
    """One phase, or of several steps how many are in which: 12 cached, 3 running."""
    counts = Counter(phase_of_step(step.phase) for step in steps)
    if sum(counts.values()) == 1:
        return next(iter(counts))
    return ", ".join(f"{number:,} {name}" for name, number in counts.most_common())


def _detail(members: Sequence[Step], urgent: Step) -> str:
    if len(members) == 1 or urgent.phase in WRONG:
        return detail(urgent)
    saved = sum(step.saved.seconds + step.saved.nanos / 1e9 for step in members)
    return f"saved {seconds(saved)}" if saved else ""


def detail(step: Step) -> str:
    """A word on a step: how long it takes or took, what went wrong, or where its outputs come from."""
    if step.phase == CACHED:
        saved = step.saved.seconds + step.saved.nanos / 1e9
        return f"from {line(step.producer_run)}" + (f", saved {seconds(saved)}" if saved else "")
    took = seconds(span(step.started_at, step.finished_at)) if step.HasField("started_at") else ""
    tried = f"tried {step.attempts} times" if step.attempts > 1 else ""
    return ", ".join(filter(None, (took, tried, line(step.message))))


def span(start: Timestamp, end: Timestamp) -> float:
    """Seconds between two times; to now where there is no end, 0 where there is no start."""
    if not start.seconds:
        return 0.0
    until = end.seconds + end.nanos / 1e9 if end.seconds else time.time()
    return max(0.0, until - start.seconds - start.nanos / 1e9)
