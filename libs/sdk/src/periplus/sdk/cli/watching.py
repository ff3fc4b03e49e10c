"""Following a run on a terminal as a table that stays where it is, and elsewhere line by line."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from periplus.sdk.cli.document import phase_of_run, phase_of_step
from periplus.sdk.cli.outcome import Exit, Failure
from periplus.sdk.cli.progress import RUNNING, Progress, detail
from periplus.sdk.cli.text import columns, line, plain, seconds

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rich.text import Text

    from periplus.lineage.v1.lineage_pb2 import Step, WatchRunResponse

_COLOURS = {1: "dim", 2: "yellow", 3: "green", 4: "red", 5: "red", 6: "dim", 7: "cyan"}
MARGIN = 4  # lines of the terminal that are not the table's


def follow(run: str, changes: Iterable[WatchRunResponse], *, quiet: bool = False) -> Progress:
    """Show a run until it has ended, and return all that is known of it. An interrupt leaves the run alone."""
    try:
        if quiet:
            return _silently(changes)
        return _live(changes) if sys.stdout.isatty() else _lines(changes)
    except KeyboardInterrupt:
        raise Failure(
            f"stopped watching; run {run} goes on",
            fix=f"periplus watch {run}, or periplus cancel {run}",
            code=Exit.INTERRUPTED,
        ) from None


def _silently(changes: Iterable[WatchRunResponse]) -> Progress:
    progress = Progress()
    for change in changes:
        progress.update(change)
    return progress


def _lines(changes: Iterable[WatchRunResponse]) -> Progress:
    progress = Progress()
    for change in changes:
        for told in _changed(progress.update(change)):
            print(told, flush=True)
    return progress


def _changed(steps: Iterable[Step]) -> Iterator[str]:
    for step in steps:
        if step.phase > 1:  # that a step waits is no news
            said = detail(step) if step.phase != RUNNING else ""  # how long is not known yet
            yield f"{line(step.path)}  {phase_of_step(step.phase)}" + (f"  {said}" if said else "")


def _live(changes: Iterable[WatchRunResponse]) -> Progress:
    # Imported here: only a terminal needs it.
    from rich.console import Console
    from rich.live import Live

    console = Console(highlight=False, markup=False, emoji=False)
    progress = Progress()
    with Live(
        get_renderable=lambda: _frame(progress, console.size.width, console.size.height - MARGIN),
        console=console,
        refresh_per_second=8,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    ):
        for change in changes:
            progress.update(change)
    for told in _table(progress, console.size.width, 40):
        console.print(told)
    return progress


def _frame(progress: Progress, width: int, height: int) -> Text:
    from rich.text import Text

    if progress.run is None:
        return Text("waiting for the first step …", style="dim")
    head = f"{plain(progress.run.id)}  {phase_of_run(progress.run.phase)}  {seconds(progress.span())}"
    return Text("\n").join([Text(line(head, width), style="bold"), *_table(progress, width, max(3, height))])


def _table(progress: Progress, width: int, height: int) -> list[Text]:
    from rich.text import Text

    rows = list(progress.rows(height))
    names = max((columns(name) for name, *_ in rows), default=0)
    said = max((columns(phases) for _, phases, *_ in rows), default=0)
    made = []
    for name, phases, phase, told in rows:
        row = f"{name}{' ' * (names - columns(name))}  {phases}{' ' * (said - columns(phases))}  {told}"
        text = Text(line(row, width))
        text.stylize(_COLOURS.get(phase, "dim"), names + 2, names + 2 + len(phases))
        made.append(text)
    return made
