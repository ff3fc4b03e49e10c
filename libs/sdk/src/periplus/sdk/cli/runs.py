"""`periplus runs`, `watch` and `cancel`: runs that there are, and one of them."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from periplus.sdk.cli import ended, watching
from periplus.sdk.cli.options import Format, Output, Project, Run, client, resolve, width
from periplus.sdk.cli.outcome import of_run
from periplus.sdk.cli.text import line, seconds, table

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp

    from periplus.lineage.v1 import lineage_pb2 as pb
    from periplus.sdk.client import Client


class Phase(StrEnum):
    """Phases of a run, as RunPhase counts them."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    ERROR = "error"
    CANCELLED = "cancelled"


def runs(
    run: Annotated[str, typer.Argument(help="Show this one: a run's id, @latest, @latest~1.")] = "",
    pipeline: Annotated[str, typer.Option(help="Only those of this pipeline.")] = "",
    phase: Annotated[Phase | None, typer.Option(help="Only those in this phase.")] = None,
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
            _show_one(services.get_run(resolve(services, run)), output)
        else:
            number = list(Phase).index(phase) + 1 if phase else 0
            _show_list(services, pipeline, number, limit, output)


def _show_list(services: Client, pipeline: str, phase: int, limit: int, output: Format) -> None:
    page = services.list_runs(pipeline=pipeline, phase=phase, size=limit)
    if output is Format.JSON:
        from periplus.sdk.cli.document import document, show

        show({"runs": [document(run) for run in page.runs], "more": bool(page.next_page_token)})
        return
    if not page.runs:
        print(f"no runs in project {line(services.connection.project)}")
        return
    head = ("RUN", "PIPELINE", "PHASE", "SUBMITTED", "TOOK", "STEPS", "CACHED", "SAVED")
    for told in table(head, map(_row, page.runs), width()):
        print(told)
    if page.next_page_token:
        print(f"… and older ones: periplus runs -n {min(1000, limit * 5)}")


def _row(run: pb.Run) -> tuple[str, ...]:
    from periplus.sdk.cli.document import phase_of_run
    from periplus.sdk.cli.progress import span

    saved = run.saved.seconds + run.saved.nanos / 1e9
    took = seconds(span(run.submitted_at, run.finished_at))
    return (
        run.id, run.pipeline, phase_of_run(run.phase), _when(run.submitted_at), took, f"{run.step_count:,}",
        f"{run.cached_steps:,}", seconds(saved) if saved else "",
    )  # fmt: skip


def _when(stamp: Timestamp) -> str:
    """Local time, to the second."""
    if not stamp.seconds:
        return ""
    return datetime.fromtimestamp(stamp.seconds, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _show_one(run: pb.Run, output: Format) -> None:
    from periplus.lineage.v1.lineage_pb2 import WatchRunResponse
    from periplus.sdk.cli.document import document, phase_of_run, show
    from periplus.sdk.cli.progress import Progress, span

    if output is Format.JSON:
        show(document(run))
        return
    facts = {
        "run": run.id,
        "pipeline": run.pipeline,
        "phase": phase_of_run(run.phase) + (f": {line(run.message)}" if run.message else ""),
        "submitted": _when(run.submitted_at),
        "took": seconds(span(run.submitted_at, run.finished_at)),
        "snapshot": run.snapshot,
        "parameters": ", ".join(f"{p.name}={p.value}" for p in run.parameters),
    }
    for name, value in facts.items():
        if value:
            print(line(f"{name + ':':<12}{line(value)}", width()))
    progress = Progress()
    progress.update(WatchRunResponse(run=run, steps=run.steps))
    rows = [(name, phases, told) for name, phases, _, told in progress.rows(200)]
    print(*["", *table(("STEP", "PHASE", ""), rows, width())], sep="\n")
    given = list(ended.outputs(run.outputs, width()))
    if given:
        print("", "outputs:", *given, sep="\n")


def watch(run: Run = "@latest", project: Project = "", output: Output = Format.TEXT) -> None:
    """Follow a run until it has ended. The exit code is that of the run, as with `periplus run`.

    \b
    Examples:
      periplus watch
      periplus watch digits-x7k2p -o json
    """
    with client(project) as services:
        chosen = resolve(services, run)
        progress = watching.follow(chosen, services.watch(chosen), quiet=output is Format.JSON)
    final = progress.run
    assert final is not None
    if output is Format.JSON:
        from periplus.sdk.cli.document import document, show

        show({**document(final), "steps": [document(step) for step in progress.steps]})
    else:
        ran, cached, saved = ended.counts(progress.steps)
        took = progress.span()
        print(ended.summary(final.id, final.phase, ran=ran, cached=cached, saved=saved, took=took))
        for told in ended.outputs(final.outputs, width()):
            print(told, flush=True)
        ended.complain(final, progress.steps)
    raise typer.Exit(of_run(final.phase))


def cancel(
    run: Run,
    terminate: Annotated[
        bool, typer.Option("--terminate", help="End the steps at once; no exit handler.")
    ] = False,
    reason: Annotated[str, typer.Option(help="Why, for the record.")] = "",
    project: Project = "",
    output: Output = Format.TEXT,
) -> None:
    """Stop a run: no new step starts, and the running ones are told to end.

    \b
    Examples:
      periplus cancel @latest
      periplus cancel digits-x7k2p --terminate --reason "wrong data"
    """
    from periplus.sdk.cli.document import phase_of_run, show

    with client(project) as services:
        chosen = resolve(services, run)
        phase = services.cancel(chosen, terminate=terminate, reason=reason)
    if output is Format.JSON:
        show({"run": chosen, "phase": phase_of_run(phase).upper()})
    else:
        print(f"run {line(chosen)} is told to stop; it is {phase_of_run(phase)}")


def add(app: typer.Typer) -> None:
    """Put the commands of this file on the application."""
    app.command("runs")(runs)
    app.command("watch")(watch)
    app.command("cancel")(cancel)
