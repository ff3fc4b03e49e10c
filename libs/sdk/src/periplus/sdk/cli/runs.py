"""`periplus runs`, `watch`, `logs` and `cancel`: the runs of the project, and one run."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from periplus.sdk.cli import divergences, summary, watching
from periplus.sdk.cli.options import Format, Output, Project, Run, client, local_time, resolve, width
from periplus.sdk.cli.outcome import exit_code_of_run
from periplus.sdk.cli.terminal import say, say_block
from periplus.sdk.cli.text import duration_text, one_line, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from periplus.cache.v1.cache_pb2 import Divergence
    from periplus.lineage.v1 import lineage_pb2 as pb
    from periplus.sdk.client import Client


MAX_ROWS = 200
"""Rows of the table of steps of one run."""


class Phase(StrEnum):
    """The phases of a run, in the order of RunPhase's numbers."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    ERROR = "error"
    CANCELLED = "cancelled"
    UNOBSERVED = "unobserved"


def runs(
    run: Annotated[
        str, typer.Argument(help="A run to show: its id, @latest, or @latest~1 for the one before.")
    ] = "",
    pipeline: Annotated[str, typer.Option(help="Only runs of this pipeline.")] = "",
    phase: Annotated[Phase | None, typer.Option(help="Only runs in this phase.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=1000, help="How many at most.")] = 20,
    project: Project = "",
    output: Output = Format.TEXT,
) -> None:
    """List runs, newest first, or show one with its steps.

    \b
    Examples:
      periplus runs
      periplus runs --pipeline digits --phase failed -n 5
      periplus runs @latest
      periplus runs digits-x7k2p -o json
    """
    with client(project) as services:
        if run:
            found = services.get_run(resolve(services, run))
            diverged = divergences.of_run(services, found.id)
            _show_one(found, diverged, output)
        else:
            number = list(Phase).index(phase) + 1 if phase else 0
            _show_list(services, pipeline, number, limit, output)


def _show_list(services: Client, pipeline: str, phase: int, limit: int, output: Format) -> None:
    page = services.list_runs(pipeline=pipeline, phase=phase, size=limit)
    if output is Format.JSON:
        from periplus.sdk.cli.document import document, print_json

        print_json({"runs": [document(run) for run in page.runs], "more": bool(page.next_page_token)})
        return
    if not page.runs:
        say(f"no runs in project {services.connection.project}")
        return
    head = ("RUN", "PIPELINE", "PHASE", "SUBMITTED", "TOOK", "STEPS", "CACHED", "SAVED")
    say(*table(head, map(_row, page.runs), width()))
    if page.next_page_token:
        say(f"… and older ones: periplus runs -n {min(1000, limit * 5)}")


def _row(run: pb.Run) -> tuple[str, ...]:
    from periplus.sdk.cli.document import run_phase_name
    from periplus.sdk.cli.watching import span

    saved = run.saved.seconds + run.saved.nanos / 1e9
    took = duration_text(span(run.submitted_at, run.finished_at))
    return (
        run.id, run.pipeline, run_phase_name(run.phase), local_time(run.submitted_at), took, f"{run.step_count:,}",
        f"{run.cached_steps:,}", duration_text(saved) if saved else "",
    )  # fmt: skip


def _show_one(run: pb.Run, diverged: Sequence[Divergence], output: Format) -> None:
    from periplus.lineage.v1.lineage_pb2 import WatchRunResponse
    from periplus.sdk.cli.document import document, print_json, run_phase_name
    from periplus.sdk.cli.watching import RunProgress, span

    if output is Format.JSON:
        print_json({**document(run), "divergences": [document(each) for each in diverged]})
        return
    fields = {
        "run": run.id,
        "pipeline": run.pipeline,
        "name": run.observed.display_name,
        "observed": f"{run.observed.namespace}/{run.observed.name}" if run.HasField("observed") else "",
        "rollback": f"to {run.rolled_back_to}" if run.rolled_back_to else "",
        "reproduces": run.reproduces + (f" {run.reproduced_step}" if run.reproduced_step else ""),
        "phase": run_phase_name(run.phase) + (f": {one_line(run.message)}" if run.message else ""),
        "submitted": local_time(run.submitted_at),
        "took": duration_text(span(run.submitted_at, run.finished_at)),
        "snapshot": run.snapshot,
        "parameters": ", ".join(f"{p.name}={p.value}" for p in run.parameters),
    }
    for name, value in fields.items():
        if value:
            say(f"{name + ':':<12}{value}", width=width())
    progress = RunProgress()
    progress.update(WatchRunResponse(run=run, steps=run.steps))
    rows = [(name, phases, details) for name, phases, _, details in progress.rows(MAX_ROWS)]
    say("", *table(("STEP", "PHASE", ""), rows, width()))
    if run.HasField("finished_at") and not run.complete:
        say("events of this run were not received yet: steps may be missing or in an earlier phase")
    if outputs := list(summary.output_lines(run.outputs, width())):
        say("", "outputs:", *outputs)
    divergences.print_them(diverged)


def watch(run: Run = "@latest", project: Project = "", output: Output = Format.TEXT) -> None:
    """Show a run until it has finished. The exit code is that of the run, as with `periplus run`.

    \b
    Examples:
      periplus watch
      periplus watch digits-x7k2p -o json
    """
    with client(project) as services:
        chosen = resolve(services, run)
        progress = watching.follow(chosen, watching.changes(services, chosen), quiet=output is Format.JSON)
        diverged = divergences.of_steps(services, chosen, progress.steps)
    final = progress.run
    assert final is not None
    if output is Format.JSON:
        from periplus.sdk.cli.document import document, print_json

        print_json(
            {
                **document(final),
                "steps": [document(step) for step in progress.steps],
                "divergences": [document(each) for each in diverged],
            }
        )
    else:
        ran, cached, saved = summary.step_counts(progress.steps)
        took = progress.span()
        say(summary.run_summary(final.id, final.phase, ran=ran, cached=cached, saved=saved, took=took))
        say(*summary.output_lines(final.outputs, width()))
        summary.print_failed_steps(final, progress.steps)
        divergences.print_them(diverged)
    raise typer.Exit(exit_code_of_run(final.phase))


def cancel(
    run: Run,
    terminate: Annotated[
        bool, typer.Option("--terminate", help="Kill the running steps at once, and run no exit handler.")
    ] = False,
    reason: Annotated[str, typer.Option(help="Why, for the record.")] = "",
    project: Project = "",
    output: Output = Format.TEXT,
) -> None:
    """Stop a run. No new step starts, running steps get SIGTERM, and the exit handler runs.

    \b
    Examples:
      periplus cancel @latest
      periplus cancel digits-x7k2p --terminate --reason "wrong data"
    """
    from periplus.sdk.cli.document import print_json, run_phase_name

    with client(project) as services:
        chosen = resolve(services, run)
        phase = services.cancel(chosen, terminate=terminate, reason=reason)
    if output is Format.JSON:
        print_json({"run": chosen, "phase": run_phase_name(phase).upper()})
    else:
        say(f"run {chosen} was asked to stop; it is {run_phase_name(phase)}")


def logs(
    run: Run = "@latest",
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Print new lines until the run finishes.")
    ] = False,
    step: Annotated[str, typer.Option("--step", help="Only the lines of this step: its path.")] = "",
    project: Project = "",
    output: Output = Format.TEXT,
) -> None:
    """Print the logs of a run. Each line begins with the name of its step, unless --step selects one.

    \b
    Examples:
      periplus logs
      periplus logs digits-x7k2p --step 'train(2)' --follow
    """
    with client(project) as services:
        lines = services.logs(resolve(services, run), step=step, follow=follow)
        if output is Format.JSON:
            from periplus.sdk.cli.document import document, print_json

            print_json({"lines": [document(one) for one in lines]})
            return
        for one in lines:
            say_block(one.line, first="" if step else f"{one_line(one.step)} | ")


def add(app: typer.Typer) -> None:
    """Add the commands of this file to the application."""
    app.command("runs")(runs)
    app.command("watch")(watch)
    app.command("cancel")(cancel)
    app.command("logs")(logs)
