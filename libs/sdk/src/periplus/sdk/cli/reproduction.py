"""`periplus reproduce`: run a run again as it was, and compare the outputs."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from periplus.sdk.cli import watching
from periplus.sdk.cli.options import Format, Output, Project, Run, client, resolve, width
from periplus.sdk.cli.outcome import Exit, exit_code_of_run
from periplus.sdk.cli.terminal import say, say_block
from periplus.sdk.cli.text import counted, one_line, shorten_digests, table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from periplus.dispatcher.v1 import dispatcher_pb2 as pb
    from periplus.lineage.v1 import lineage_pb2 as lineage
    from periplus.sdk.client import Client
    from periplus.snapshotter.v1.snapshotter_pb2 import Claim

IDENTICAL = 1
MET = 1
REFUSING = (2, 3, 5)
"""RequirementState that refuses a reproduction: CHANGED, MISSING, UNSAFE."""
CANCELLED = 6
MAX_ROWS = 50
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
        checked = services.reproduce(original, step=step, validate_only=True, claim=claim)
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


def _environment() -> Claim:
    """What of the environment of this process counts: packages, interpreter and platform."""
    from periplus.sdk.snapshots.claim import claim

    found, _ = claim(Path())
    found.ClearField("git")
    found.ClearField("lockfile")
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
    yield f"{one_line(run)} needs {counted(len(requirements), 'thing')} as it was" + (
        f": {listed}" if listed else ""
    )
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
    from periplus.sdk.cli.manifest import yaml_text

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


def add(app: typer.Typer) -> None:
    """Add the command of this file to the application."""
    app.command("reproduce")(reproduce)
