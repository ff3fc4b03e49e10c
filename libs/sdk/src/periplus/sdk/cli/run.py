"""`periplus run`: run a pipeline or a manifest, and show its progress."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from periplus.sdk.cli import divergences, source, summary, watching
from periplus.sdk.cli.options import Format, Output, Project, client, project_name, width
from periplus.sdk.cli.outcome import exit_code_of_run
from periplus.sdk.cli.terminal import say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from periplus.cache.v1.cache_pb2 import Divergence
    from periplus.dispatcher.v1.dispatcher_pb2 import SubmitRunResponse
    from periplus.lineage.v1.lineage_pb2 import Run, Step
    from periplus.types.v1.step_pb2 import Outputs

SUCCEEDED = 3
FINAL = (3, 4, 5, 6, 7)
HIT = 1


def run(
    file: source.File,
    parameters: source.Parameters = None,
    cache: source.CacheOption = None,
    image: source.Image = "",
    watch: Annotated[
        bool, typer.Option(help="Show the run until it has finished, and exit with its exit code.")
    ] = True,
    request_id: Annotated[
        str,
        typer.Option(
            "--request-id",
            help="Makes a retry safe: a request with the id of an earlier one gives that run. Default: a new id.",
        ),
    ] = "",
    project: Project = "",
    output: Output = Format.TEXT,
) -> None:
    """Run a pipeline or a hera workflow (.py), or an Argo manifest (.yaml). Steps whose result is in the cache are not run again.

    A file of a WorkflowTemplate, ClusterWorkflowTemplate or CronWorkflow gives a run of its workflow, as `argo submit --from`
    does; nothing of it is stored in Argo. Further documents of the file are read before the templates that Argo has.

    \b
    Examples:
      periplus run pipeline.py
      periplus run hera_workflow.py -p seed=7
      periplus run workflow-template.yaml -p seed=7
      periplus run pipeline.py -p seed=7 -p 'rates=[0.1, 0.2]'
      periplus run pipeline.py --image registry.example.org/science:2
      periplus run workflow.yaml --cache refresh
      periplus run workflow.yaml --no-watch --request-id nightly-2026-11-22 -o json

    The exit code is that of the run: 0 succeeded, 1 failed, 2 bad input, 3 the stack is not reachable,
    4 cancelled.
    """
    started = time.monotonic()
    workflow = source.read(file, parameters, project_name(project), image)
    with client(project) as services:
        spec, warnings = source.spec(workflow, cache)
        accepted = services.submit(spec, request_id or _new_id())
        if output is Format.TEXT:
            _announce(accepted, [*warnings, *accepted.plan.warnings])
        # What the steps of an earlier request's run did is not in its answer.
        is_earlier = not accepted.HasField("plan")
        if (is_earlier and accepted.phase in FINAL) or (watch and accepted.phase != SUCCEEDED):
            changes = services.watch(accepted.run, wait_seconds=watching.WAIT_SECONDS)
            progress = watching.follow(accepted.run, changes, quiet=output is Format.JSON)
            took = progress.span() if is_earlier else time.monotonic() - started
            diverged = divergences.of_steps(services, accepted.run, progress.steps)
            result = _Result(accepted, progress.run, progress.steps, diverged, took=took)
        else:
            result = _Result(accepted, took=time.monotonic() - started)
    if output is Format.JSON:
        result.print_json([*warnings, *accepted.plan.warnings])
    elif result.is_finished:
        result.print_text()
    else:
        say(f"run {accepted.run} was accepted; periplus watch {accepted.run}")
    raise typer.Exit(exit_code_of_run(result.phase))


def _new_id() -> str:
    import uuid

    return str(uuid.uuid4())


def _announce(accepted: SubmitRunResponse, warnings: Sequence[str]) -> None:
    for warning in warnings:
        say(f"warning: {warning}", error=True)
    if accepted.HasField("plan"):
        say(f"run {accepted.run}", *summary.plan_lines(accepted.plan, width()), "")
    else:
        say(f"run {accepted.run} was submitted before with this request id", "")


class _Result:
    """The state of a run at the end of the command: from the response to SubmitRun, or from what was watched."""

    def __init__(
        self,
        accepted: SubmitRunResponse,
        run: Run | None = None,
        steps: Sequence[Step] = (),
        diverged: Sequence[Divergence] = (),
        *,
        took: float,
    ) -> None:
        self._diverged = diverged
        self._accepted = accepted
        self._run = run
        self._steps = steps
        self._took = took
        self.phase: int = run.phase if run else accepted.phase
        self.is_finished = self.phase in (3, 4, 5, 6)
        if run:
            self._ran, self._cached, self._saved = summary.step_counts(steps)
        else:
            saved = accepted.plan.saved
            self._ran = 0
            self._cached = sum(step.verdict == HIT for step in accepted.plan.steps) if self.is_finished else 0
            self._saved = saved.seconds + saved.nanos / 1e9 if self.is_finished else 0.0

    @property
    def _outputs(self) -> Outputs:
        return self._run.outputs if self._run else self._accepted.outputs

    def print_text(self) -> None:
        """Print the summary and the outputs, and failed steps to the standard error."""
        say(
            summary.run_summary(
                self._accepted.run,
                self.phase,
                ran=self._ran,
                cached=self._cached,
                saved=self._saved,
                took=self._took,
            )
        )
        say(*summary.output_lines(self._outputs, width()))
        if self._run:
            summary.print_failed_steps(self._run, self._steps)
        divergences.print_them(self._diverged)

    def print_json(self, warnings: Sequence[str]) -> None:
        """Print the one JSON document."""
        from periplus.sdk.cli.document import document, print_json, run_phase_name

        print_json(
            {
                "run": self._accepted.run,
                "phase": run_phase_name(self.phase).upper(),
                "message": self._run.message if self._run else "",
                "steps_run": self._ran,
                "steps_cached": self._cached,
                "saved_seconds": self._saved,
                "took_seconds": self._took,
                "outputs": document(self._outputs),
                "plan": document(self._accepted.plan),
                "steps": [document(step) for step in self._steps],
                "divergences": [document(each) for each in self._diverged],
                "warnings": list(warnings),
            }
        )


def add(app: typer.Typer) -> None:
    """Add the command of this file to the application."""
    app.command("run")(run)
