"""A run as `periplus watch` shows it: its progress by step, as a table that is redrawn or line by line."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from periplus.sdk.cli.document import run_phase_name, step_phase_name
from periplus.sdk.cli.outcome import Exit, Failure
from periplus.sdk.cli.terminal import say
from periplus.sdk.cli.text import display_width, duration_text, group_items, one_line, printable

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp
    from rich.text import Text

    from periplus.lineage.v1.lineage_pb2 import Run, Step, WatchRunResponse
    from periplus.sdk.client import Client

PENDING = 1
RUNNING = 2
SUCCEEDED = 3
RAN = (3, 4, 5)
"""StepPhase of a step that ran to its end: SUCCEEDED, FAILED, ERROR."""
WRONG = (4, 5)
CACHED = 7
UNCACHEABLE = 5
"""Verdict of a step that can not be cached."""
# Lower is shown first where the terminal has not enough rows: failed steps, running steps, pending steps.
_PRIORITY = {4: 0, 5: 0, 2: 2, 1: 4}
_PRIORITY_OF_DELAYED = 1


class RunProgress:
    """A run and its steps, as of the last message of WatchRun."""

    def __init__(self) -> None:
        self.run: Run | None = None
        self._steps: dict[str, Step] = {}

    @property
    def steps(self) -> Sequence[Step]:
        """In the order in which they were first reported. A fan-out is replaced by its items once these are reported."""
        expanded = {path.rpartition("(")[0] for path in self._steps if path.endswith(")")}
        return [step for path, step in self._steps.items() if path not in expanded]

    def update(self, change: WatchRunResponse) -> list[Step]:
        """Apply a message, and return the steps whose phase, or what delays them, has changed."""
        self.run = change.run
        changed = []
        for step in change.steps:
            before = self._steps.get(step.path)
            if before is None or (before.phase, before.message) != (step.phase, step.message):
                changed.append(step)
            self._steps[step.path] = step
        return changed

    def rows(self, height: int) -> Iterator[tuple[str, str, int, str]]:
        """Name, phases, the phase that decides the colour, and details: at most `height` rows."""
        groups = group_items(self.steps, lambda step: step.path)
        if len(groups) > height:
            groups = group_items(self.steps, lambda step: step.path, max_listed=1)
        left = len(groups) - height + 1 if len(groups) > height else 0
        hidden = sorted(range(len(groups)), key=lambda n: _priority(groups[n].members))[len(groups) - left :]
        for number, group in enumerate(groups):
            if number not in hidden:
                urgent = min(group.members, key=_step_priority)
                yield (
                    one_line(group.name),
                    phases(group.members),
                    urgent.phase,
                    _detail(group.members, urgent),
                )
        if left:
            rest = [step for number in hidden for step in groups[number].members]
            yield f"… {len(rest):,} more", phases(rest), 0, ""

    def span(self) -> float:
        """Seconds from the submission of the run to its end, or to now."""
        return span(self.run.submitted_at, self.run.finished_at) if self.run else 0.0


def _step_priority(step: Step) -> int:
    return _PRIORITY_OF_DELAYED if is_delayed(step) else _PRIORITY.get(step.phase, 9)


def _priority(members: Sequence[Step]) -> int:
    """Lower is shown first. A fan-out is many steps, so it goes before a single step that is pending or done."""
    most = min(map(_step_priority, members))
    return min(most, 3) if len(members) > 1 else most


def is_delayed(step: Step) -> bool:
    """Whether something keeps a step from its end: its message says what, until it has finished."""
    return step.phase in (PENDING, RUNNING) and bool(step.message)


def phases(steps: Iterable[Step]) -> str:
    """The phase of a single step, or how many steps are in each phase: 12 cached, 3 running."""
    counts = Counter(step_phase_name(step.phase) for step in steps)
    if sum(counts.values()) == 1:
        return next(iter(counts))
    return ", ".join(f"{number:,} {name}" for name, number in counts.most_common())


def _detail(members: Sequence[Step], urgent: Step) -> str:
    if len(members) == 1 or urgent.phase in WRONG or is_delayed(urgent):
        return detail(urgent)
    saved = sum(step.saved.seconds + step.saved.nanos / 1e9 for step in members)
    return f"saved {duration_text(saved)}" if saved else ""


def detail(step: Step) -> str:
    """Details of a step: how long it runs or ran, its message, or the producer of its outputs."""
    if step.phase == CACHED:
        saved = step.saved.seconds + step.saved.nanos / 1e9
        return f"from {one_line(step.producer_run)}" + (f", saved {duration_text(saved)}" if saved else "")
    took = duration_text(span(step.started_at, step.finished_at)) if step.HasField("started_at") else ""
    tried = f"tried {step.attempts} times" if step.attempts > 1 else ""
    # What the plan said is not said again.
    is_news = step.phase == SUCCEEDED and step.uncacheable_reason and step.verdict != UNCACHEABLE
    not_cached = f"not cached: {one_line(step.uncacheable_reason)}" if is_news else ""
    return ", ".join(filter(None, (took, tried, one_line(step.message), not_cached)))


def span(start: Timestamp, end: Timestamp) -> float:
    """Seconds between two times; to now where there is no end, 0 where there is no start."""
    if not start.seconds:
        return 0.0
    until = end.seconds + end.nanos / 1e9 if end.seconds else time.time()
    return max(0.0, until - start.seconds - start.nanos / 1e9)


WAIT_SECONDS = 60
"""How long to wait for the first event of a run that was accepted."""


def changes(services: Client, run: str) -> Iterator[WatchRunResponse]:
    """The changes of a run that may not exist. Raises CallError, NOT_FOUND at once if no run was accepted by this id."""
    from periplus.sdk.client import CallError

    try:
        yield from services.watch(run)
    except CallError as error:
        if error.code != "NOT_FOUND":
            raise
        services.get_run_phase(run)
        say(
            f"run {run} was accepted, and none of its events has arrived: waiting up to {WAIT_SECONDS} s for the first",
            error=True,
        )
        yield from services.watch(run, wait_seconds=WAIT_SECONDS)


MAX_FINAL_ROWS = 40
"""Rows of the table that stays on the terminal when the run has finished."""

_COLOURS = {1: "dim", 2: "yellow", 3: "green", 4: "red", 5: "red", 6: "dim", 7: "cyan"}
RESERVED_ROWS = 4
"""Rows of the terminal that the table leaves free."""


def follow(run: str, changes: Iterable[WatchRunResponse], *, quiet: bool = False) -> RunProgress:
    """Show a run until it has finished, and return its last state. An interrupt does not stop the run."""
    try:
        if quiet:
            return _silently(changes)
        return _live(changes) if sys.stdout.isatty() else _lines(changes)
    except KeyboardInterrupt:
        raise Failure(
            f"stopped watching; run {run} continues",
            fix=f"periplus watch {run}, or periplus cancel {run}",
            code=Exit.INTERRUPTED,
        ) from None


def _silently(changes: Iterable[WatchRunResponse]) -> RunProgress:
    progress = RunProgress()
    for change in changes:
        progress.update(change)
    return progress


def _lines(changes: Iterable[WatchRunResponse]) -> RunProgress:
    progress = RunProgress()
    for change in changes:
        for text in _changed(progress.update(change)):
            say(text)
    return progress


def _changed(steps: Iterable[Step]) -> Iterator[str]:
    for step in steps:
        if step.phase != PENDING or is_delayed(step):
            details = detail(step) if step.phase != RUNNING else one_line(step.message)
            yield f"{one_line(step.path)}  {step_phase_name(step.phase)}" + (
                f"  {details}" if details else ""
            )


def _live(changes: Iterable[WatchRunResponse]) -> RunProgress:
    # Imported here: rich is slow to import, and only a terminal needs it.
    from rich.console import Console
    from rich.live import Live

    console = Console(highlight=False, markup=False, emoji=False)
    progress = RunProgress()
    with Live(
        get_renderable=lambda: _frame(progress, console.size.width, console.size.height - RESERVED_ROWS),
        console=console,
        refresh_per_second=8,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    ):
        for change in changes:
            progress.update(change)
    for row in _table(progress, console.size.width, MAX_FINAL_ROWS):
        console.print(row)
    return progress


def _frame(progress: RunProgress, width: int, height: int) -> Text:
    from rich.text import Text

    if progress.run is None:
        return Text("waiting for the first step …", style="dim")
    head = f"{printable(progress.run.id)}  {run_phase_name(progress.run.phase)}  {duration_text(progress.span())}"
    return Text("\n").join(
        [Text(one_line(head, width), style="bold"), *_table(progress, width, max(3, height))]
    )


def _table(progress: RunProgress, width: int, height: int) -> list[Text]:
    from rich.text import Text

    rows = list(progress.rows(height))
    name_width = max((display_width(name) for name, *_ in rows), default=0)
    phase_width = max((display_width(phases) for _, phases, *_ in rows), default=0)
    lines = []
    for name, phases, phase, details in rows:
        row = f"{name}{' ' * (name_width - display_width(name))}  {phases}{' ' * (phase_width - display_width(phases))}  {details}"
        text = Text(one_line(row, width))
        text.stylize(_COLOURS.get(phase, "dim"), name_width + 2, name_width + 2 + len(phases))
        lines.append(text)
    return lines
