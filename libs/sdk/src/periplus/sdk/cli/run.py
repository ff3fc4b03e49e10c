"""`periplus run`: run a pipeline or a manifest, and show what happens."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from periplus.sdk.cli import ended, source, watching
from periplus.sdk.cli.options import Format, Output, Project, client, width
from periplus.sdk.cli.outcome import of_run
from periplus.sdk.cli.text import line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from periplus.dispatcher.v1.dispatcher_pb2 import SubmitRunResponse
    from periplus.lineage.v1.lineage_pb2 import Run, Step
    from periplus.types.v1.step_pb2 import Outputs

SUCCEEDED = 3
HIT = 1


def run(
    file: source.File,
    parameters: source.Parameters = None,
    cache: source.CacheOption = None,
    watch: Annotated[bool, typer.Option(help="Stay until the run has ended.")] = True,
    request_id: Annotated[
        str,
        typer.Option(
            "--request-id", help="The same id with the same file is the same run; default: a new one."
        ),
    ] = "",
    project: Project = "",
    output: Output = Format.TEXT,
) -> None:
    """Run a pipeline (.py) or an Argo manifest (.yaml): steps that were done before are not run again.

    \b
    Examples:
      periplus run pipeline.py
      periplus run pipeline.py -p seed=7 -p 'rates=[0.1, 0.2]'
      periplus run workflow.yaml --cache refresh
      periplus run workflow.yaml --no-watch --request-id nightly-2026-11-22 -o json

    The exit code says how the run ended: 0 succeeded, 1 failed, 2 bad input, 3 the stack is not reachable,
    4 cancelled.
    """
    started = time.monotonic()
    found = source.read(file, parameters)
    with client(project) as services:
        spec, warnings = source.spec(found, cache)
        accepted = services.submit(spec, request_id or _new_id())
        if output is Format.TEXT:
            _announce(accepted, [*warnings, *accepted.plan.warnings])
        if accepted.phase == SUCCEEDED or not watch:
            final = _Final(accepted, took=time.monotonic() - started)
        else:
            changes = services.watch(accepted.run)
            progress = watching.follow(accepted.run, changes, quiet=output is Format.JSON)
            final = _Final(accepted, progress.run, progress.steps, took=time.monotonic() - started)
    if output is Format.JSON:
        final.show([*warnings, *accepted.plan.warnings])
    elif final.ended:
        final.tell()
    else:
        print(f"run {line(accepted.run)} was accepted; periplus watch {line(accepted.run)}")
    raise typer.Exit(of_run(final.phase))


def _new_id() -> str:
    import uuid

    return str(uuid.uuid4())


def _announce(accepted: SubmitRunResponse, warnings: Sequence[str]) -> None:
    from periplus.sdk.cli import planned

    for warning in warnings:
        print(f"warning: {line(warning)}", file=sys.stderr)
    print(f"run {line(accepted.run)}")
    for told in planned.told(accepted.plan, width()):
        print(told)
    print(flush=True)


class _Final:
    """How a run stands when the command ends: from the answer alone, or from what was watched."""

    def __init__(
        self, accepted: SubmitRunResponse, run: Run | None = None, steps: Sequence[Step] = (), *, took: float
    ) -> None:
        self._accepted = accepted
        self._run = run
        self._steps = steps
        self._took = took
        self.phase: int = run.phase if run else accepted.phase
        self.ended = self.phase in (3, 4, 5, 6)
        if run:
            self._ran, self._cached, self._saved = ended.counts(steps)
        else:
            saved = accepted.plan.saved
            self._ran = 0
            self._cached = sum(step.verdict == HIT for step in accepted.plan.steps) if self.ended else 0
            self._saved = saved.seconds + saved.nanos / 1e9 if self.ended else 0.0

    @property
    def _outputs(self) -> Outputs:
        return self._run.outputs if self._run else self._accepted.outputs

    def tell(self) -> None:
        """The summary and the outputs; what went wrong goes to the standard error."""
        print(
            ended.summary(
                self._accepted.run,
                self.phase,
                ran=self._ran,
                cached=self._cached,
                saved=self._saved,
                took=self._took,
            )
        )
        for told in ended.outputs(self._outputs, width()):
            print(told)
        if self._run:
            sys.stdout.flush()
            ended.complain(self._run, self._steps)

    def show(self, warnings: Sequence[str]) -> None:
        """The one JSON document."""
        from periplus.sdk.cli.document import document, phase_of_run, show

        show(
            {
                "run": self._accepted.run,
                "phase": phase_of_run(self.phase).upper(),
                "message": self._run.message if self._run else "",
                "steps_run": self._ran,
                "steps_cached": self._cached,
                "saved_seconds": self._saved,
                "took_seconds": self._took,
                "outputs": document(self._outputs),
                "plan": document(self._accepted.plan),
                "steps": [document(step) for step in self._steps],
                "warnings": list(warnings),
            }
        )


def add(app: typer.Typer) -> None:
    """Put the commands of this file on the application."""
    app.command("run")(run)
