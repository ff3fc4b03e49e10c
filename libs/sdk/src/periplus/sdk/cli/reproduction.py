"""`periplus reproduce` and `rollback`: run a run again as it was, or make its outputs the newest of its pipeline again."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from periplus.sdk.cli import watching
from periplus.sdk.cli.options import Format, Output, Project, Run, client, resolve, width
from periplus.sdk.cli.outcome import Exit, Failure, exit_code_of_run
from periplus.sdk.cli.terminal import say, say_block
from periplus.sdk.cli.text import counted, one_line, shorten_digests, table, yaml_difference

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

    from periplus.dispatcher.v1 import dispatcher_pb2 as pb
    from periplus.lineage.v1 import lineage_pb2 as lineage
    from periplus.sdk.client import Client
    from periplus.snapshotter.v1.snapshotter_pb2 import Claim

Answer = TypeVar("Answer")
IDENTICAL = 1
MET = 1
REFUSING = (2, 3, 5)
"""RequirementState that refuses a reproduction: CHANGED, MISSING, UNSAFE."""
CANCELLED = 6
MAX_ROWS = 50
MAX_READING_SECONDS = 1800.0
MAX_DIGEST_WAIT_SECONDS = 60.0
"""For the digests of the reproduction's artifacts, which are computed after it has finished."""


def reproduce(
    run: Run,
    step: Annotated[
        str, typer.Option("--step", help="Only run this step, with the inputs that it had: its path.")
    ] = "",
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Only check what it needs; exits with 6 if something is not as it was."
        ),
    ] = False,
    show_manifest: Annotated[
        bool,
        typer.Option("--show-manifest", help="Also the Workflow that runs, as YAML; with -o json as JSON."),
    ] = False,
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Run it also if something that it needs is not as it was.")
    ] = False,
    project: Project = "",
    output: Output = Format.TEXT,
) -> None:
    """Run a run again as it was, with the cache off, and compare the outputs of each step.

    Its manifest with the library templates of then, its images by digest, its inputs and its code are checked first. The
    exit code is 0 if every output is identical, 1 if one is different or can not be compared, 6 if it was not run.

    \b
    Examples:
      periplus reproduce @latest --dry-run
      periplus reproduce digits-x7k2p
      periplus reproduce digits-x7k2p --step 'train(2)' -o json
      periplus reproduce digits-x7k2p --dry-run --show-manifest
    """
    is_text = output is Format.TEXT
    with client(project) as services:
        original = resolve(services, run)
        claim = _environment()
        checked = _repeated(
            lambda: services.reproduce(original, step=step, validate_only=True, claim=claim),
            quiet=not is_text,
        )
        if is_text:
            say(*_requirement_lines(original, checked.requirements))
            if show_manifest:
                _print_manifest(checked.manifest)
        unmet = [each for each in checked.requirements if each.state in REFUSING]
        if dry_run or (unmet and not anyway):
            _end(checked, original, show_manifest=show_manifest, is_text=is_text)
            if unmet and is_text and not dry_run:
                say("nothing was run; periplus reproduce --anyway runs it nevertheless", error=True)
            raise typer.Exit(Exit.REFUSED if unmet else Exit.OK)
        accepted = services.reproduce(
            original, step=step, request_id=_new_id(), accept_unmet=anyway, claim=claim
        )
        if is_text:
            say(f"run {accepted.run} reproduces {original}", "")
        changes = services.watch(accepted.run, wait_seconds=watching.WAIT_SECONDS)
        progress = watching.follow(accepted.run, changes, quiet=not is_text)
        graded = _graded(services, accepted.run)
    final = progress.run
    assert final is not None
    if is_text:
        say(*_grade_lines(accepted.run, graded))
    _end(checked, original, accepted.run, graded, show_manifest=show_manifest, is_text=is_text)
    if final.phase == CANCELLED:
        raise typer.Exit(exit_code_of_run(final.phase))
    raise typer.Exit(Exit.OK if graded.grade == IDENTICAL else Exit.FAILED)


def _repeated(call: Callable[[], Answer], *, quiet: bool) -> Answer:
    """The answer to a check; large objects take the cache longer than one call."""
    from periplus.sdk.client.call_error import CallError

    until, said = time.monotonic() + MAX_READING_SECONDS, quiet
    while True:
        try:
            return call()
        except CallError as error:
            if error.reason != "OBJECTS_BEING_READ" or time.monotonic() > until:
                raise
            if not said:
                say("the cache reads the objects, to compare their digests …", error=True)
                said = True


def _environment() -> Claim:
    """What of the environment of this process counts: packages, interpreter and platform."""
    from periplus.sdk.snapshots.claim import claim

    found, _ = claim(Path())
    found.ClearField("git")
    found.ClearField("lockfile")
    found.ClearField("omitted")
    return found


def _new_id() -> str:
    import uuid

    return str(uuid.uuid4())


def _graded(services: Client, run: str) -> lineage.GradeReproductionResponse:
    """The grade, once the digests of the reproduction's artifacts are known, or after a time."""
    until = time.monotonic() + MAX_DIGEST_WAIT_SECONDS
    while True:
        found = services.grade_reproduction(run)
        if not found.is_pending or time.monotonic() > until:
            return found
        time.sleep(0.2)


def _requirement_lines(run: str, requirements: Sequence[pb.Requirement]) -> Iterator[str]:
    counts = Counter(_state(each) for each in requirements)
    listed = ", ".join(f"{count:,} {state}" for state, count in counts.items())
    count = counted(len(requirements), "requirement")
    yield f"{one_line(run)}: {count}" + (f": {listed}" if listed else "")
    rows = [each for each in requirements if each.state != MET]
    if not rows:
        return
    cells = [
        (
            _kind(each),
            shorten_digests(one_line(each.name)),
            _state(each),
            ", ".join(each.steps[:3]) + ("…" if len(each.steps) > 3 else ""),
            each.reason,
        )
        for each in rows[:MAX_ROWS]
    ]
    yield ""
    yield from table(("NEEDS", "NAME", "STATE", "STEPS", "WHY"), cells, width())
    if len(rows) > MAX_ROWS:
        yield f"… and {len(rows) - MAX_ROWS:,} more: -o json lists all"
    for fix in dict.fromkeys(each.fix for each in rows[:MAX_ROWS] if each.fix):
        yield f"fix:   {one_line(fix)}"
    yield ""


def _grade_lines(run: str, graded: lineage.GradeReproductionResponse) -> Iterator[str]:
    total = graded.identical + graded.different + graded.not_comparable
    parts = (
        (graded.identical, "identical"),
        (graded.different, "different"),
        (graded.not_comparable, "not comparable"),
    )
    counts = ", ".join(f"{count:,} {text}" for count, text in parts if count) or "nothing to compare"
    yield f"{_grade(graded.grade)}: run {one_line(run)} compared with {one_line(graded.original)}: {counted(total, 'output')}: {counts}"
    rows = [each for each in graded.outputs if each.grade != IDENTICAL]
    cells = [
        (
            one_line(each.step),
            one_line(each.output),
            _grade(each.grade),
            _side(each, "original"),
            _side(each, "reproduced"),
            each.reason,
        )
        for each in rows[:MAX_ROWS]
    ]
    if cells:
        yield ""
        yield from table(("STEP", "OUTPUT", "GRADE", "WAS", "IS", "WHY"), cells, width())
    if len(rows) > MAX_ROWS:
        yield f"… and {len(rows) - MAX_ROWS:,} more: -o json lists all"


def _side(each: lineage.OutputComparison, side: str) -> str:
    return one_line(shorten_digests(getattr(each, side)), 40) if each.HasField(side) else "-"  # type: ignore[arg-type]


def _end(
    checked: pb.ReproduceRunResponse,
    original: str,
    run: str = "",
    graded: lineage.GradeReproductionResponse | None = None,
    *,
    show_manifest: bool,
    is_text: bool,
) -> None:
    """Print the one JSON document."""
    if is_text:
        return
    from periplus.sdk.cli.document import document, print_json

    found: dict[str, Any] = {
        "original": original,
        "run": run,
        "requirements": [document(each) for each in checked.requirements],
    }
    grade = document(graded) if graded else {"grade": None, "outputs": []}
    if show_manifest:
        found["manifest"] = json.loads(checked.manifest or "null")
    print_json(found | {name: value for name, value in grade.items() if name != "original"})


def _print_manifest(manifest: str) -> None:
    from periplus.sdk.cli.text import yaml_text

    say_block(yaml_text(json.loads(manifest)))


def _kind(each: pb.Requirement) -> str:
    from periplus.dispatcher.v1.dispatcher_pb2 import RequirementKind
    from periplus.sdk.cli.document import name_of

    return name_of(RequirementKind.DESCRIPTOR, each.kind).lower()


def _state(each: pb.Requirement) -> str:
    from periplus.dispatcher.v1.dispatcher_pb2 import RequirementState
    from periplus.sdk.cli.document import name_of

    return name_of(RequirementState.DESCRIPTOR, each.state).lower()


def _grade(number: int) -> str:
    from periplus.lineage.v1.lineage_pb2 import Grade
    from periplus.sdk.cli.document import name_of

    return name_of(Grade.DESCRIPTOR, number).lower().replace("_", " ")


def rollback(
    pipeline: Annotated[str, typer.Argument(help="The pipeline, as `periplus runs` shows it.")],
    to: Annotated[
        str, typer.Option("--to", help="The run whose outputs become the newest: its id, or @latest~1.")
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only check, and show what would change.")
    ] = False,
    keep_template: Annotated[
        bool,
        typer.Option("--keep-template", help="Leave a WorkflowTemplate of the pipeline's name as it is."),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    project: Project = "",
    output: Output = Format.TEXT,
) -> None:
    """Make the outputs of an earlier run the newest of its pipeline again. Nothing runs: a new run is served all of them.

    That every artifact still has its bytes is checked first. If Argo has a WorkflowTemplate of the pipeline's name, it gets the
    spec again that the run used; the difference is shown first, and its present spec is stored in a snapshot.

    \b
    Examples:
      periplus rollback digits --to digits-x7k2p --dry-run
      periplus rollback digits --to digits-x7k2p --yes
    """
    is_text = output is Format.TEXT
    with client(project) as services:
        earlier = resolve(services, to)
        checked = _repeated(
            lambda: services.roll_back(pipeline, earlier, validate_only=True, keep_template=keep_template),
            quiet=not is_text,
        )
        unmet = [each for each in checked.requirements if each.state in REFUSING]
        if is_text:
            say(*_requirement_lines(f"a rollback to {earlier}", checked.requirements))
            _print_template(checked)
        if dry_run or unmet:
            if not is_text:
                _print_rollback(checked, earlier)
            raise typer.Exit(Exit.REFUSED if unmet else Exit.OK)
        if not yes:
            _confirm(pipeline, earlier, output)
        done = services.roll_back(pipeline, earlier, request_id=_new_id(), keep_template=keep_template)
    if not is_text:
        _print_rollback(done, earlier)
        return
    say(
        f"run {one_line(done.run)} has the outputs of {one_line(earlier)}: it is the newest of {one_line(pipeline)}"
    )
    if done.template.replaced_snapshot:
        say(
            f"the WorkflowTemplate {one_line(done.template.name)} was replaced; what it was: "
            f"periplus snapshot show {done.template.replaced_snapshot} --content"
        )


def _confirm(pipeline: str, earlier: str, output: Format) -> None:
    """Ask on a terminal; raises Failure where there is none, and typer.Abort for any answer but yes."""
    if not sys.stdin.isatty() or output is Format.JSON:
        raise Failure(
            "the rollback was not confirmed", fix="add --yes to do it, or --dry-run to see what it does"
        )
    typer.confirm(f"Roll {one_line(pipeline)} back to {one_line(earlier)}?", abort=True)


def _print_template(checked: pb.RollBackPipelineResponse) -> None:
    """What becomes of the WorkflowTemplate of the pipeline's name, as a unified diff."""
    if not checked.HasField("template"):
        return
    template = checked.template
    name = f"WorkflowTemplate {one_line(template.name)}"
    if template.kept_reason:
        say(f"the {name} stays as it is: {one_line(template.kept_reason)}")
        return
    say_block(yaml_difference(template.current, template.earlier, f"{name} now", f"{name} then"))


def _print_rollback(found: pb.RollBackPipelineResponse, earlier: str) -> None:
    """Print the one JSON document."""
    from periplus.sdk.cli.document import document, print_json

    print_json({"rolled_back_to": earlier, **document(found)})


def add(app: typer.Typer) -> None:
    """Add the commands of this file to the application."""
    app.command("reproduce")(reproduce)
    app.command("rollback")(rollback)
