"""`periplus shadow` and `periplus adopt`: the runs whose Workflows others submitted."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Annotated

import typer

from periplus.sdk.cli.options import Format, Output, Project, client, width
from periplus.sdk.cli.terminal import say
from periplus.sdk.cli.text import counted, duration_text, one_line, table

if TYPE_CHECKING:
    from google.protobuf.duration_pb2 import Duration

    from periplus.cache.v1 import cache_pb2 as pb

SECONDS_PER_DAY = 86_400


def shadow(
    pipeline: Annotated[str, typer.Option(help="Only runs of this pipeline.")] = "",
    days: Annotated[
        int | None, typer.Option(min=1, max=36_500, help="Only steps that finished in the last days.")
    ] = None,
    project: Project = "",
    output: Output = Format.TEXT,
) -> None:
    """Show what the cache would have saved in runs that others submitted, by pipeline.

    Counts the steps that ran although a step with the same key had succeeded before. Nothing is served to observed runs.

    \b
    Examples:
      periplus shadow
      periplus shadow --pipeline digits --days 7 -o json
    """
    with client(project) as services:
        since = None if days is None else time.time() - days * SECONDS_PER_DAY
        found = services.get_shadow_savings(pipeline, since)
        scope = one_line(services.connection.project)
    if output is Format.JSON:
        from periplus.sdk.cli.document import document, print_json

        print_json({"pipelines": [document(each) for each in found]})
        return
    if not found:
        say(f"no steps of observed runs in project {scope}")
        return
    head = ("PIPELINE", "RUNS", "STEPS", "WOULD BE CACHED", "SAVES", "OF", "PODS", "NOT CACHEABLE")
    say(*table(head, map(_row, found), width()))
    steps, hits = sum(each.steps for each in found), sum(each.hits for each in found)
    saved, pods = sum(_seconds(each.saved) for each in found), sum(each.saved_pods for each in found)
    say(
        "",
        f"{hits:,} of {counted(steps, 'step')} would have been cached: {duration_text(saved)} and {counted(pods, 'pod')} saved",
    )


def _row(each: pb.PipelineShadow) -> tuple[str, ...]:
    excluded = f"{each.uncacheable_steps:,}: {each.uncacheable_reason}" if each.uncacheable_steps else ""
    return (
        each.pipeline, f"{each.runs:,}", f"{each.steps:,}", f"{each.hits:,}", duration_text(_seconds(each.saved)),
        duration_text(_seconds(each.duration)), f"{each.saved_pods:,}", excluded,
    )  # fmt: skip


def _seconds(duration: Duration) -> float:
    return duration.seconds + duration.nanos / 1e9


def adopt(
    namespace: Annotated[
        str,
        typer.Option(
            help="Only Workflows of this namespace; default: of all that are observed for the project."
        ),
    ] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list the Workflows.")] = False,
    project: Project = "",
    output: Output = Format.TEXT,
) -> None:
    """Record the Workflows that others submitted and that Argo still has, live or archived, as runs of the project.

    Those that are recorded already stay as they are.

    \b
    Examples:
      periplus adopt --dry-run
      periplus adopt --namespace ml -o json
    """
    found = []
    with client(project) as services:
        for each in services.adopt(namespace, validate_only=dry_run):
            found.append(each)
            if output is Format.TEXT:
                reason = f": skipped, as {each.skipped_reason}" if each.skipped_reason else ""
                say(one_line(f"{each.run}  {each.pipeline}{reason}", width()))
    if output is Format.JSON:
        from periplus.sdk.cli.document import document, print_json

        print_json({"workflows": [document(each) for each in found], "dry_run": dry_run})
        return
    counts = Counter(bool(each.skipped_reason) for each in found)
    skipped = f", {counts[True]:,} skipped" if counts[True] else ""
    say(f"{counted(counts[False], 'Workflow')} {'would be adopted' if dry_run else 'adopted'}{skipped}")


def add(app: typer.Typer) -> None:
    """Add the commands of this file to the application."""
    app.command("shadow")(shadow)
    app.command("adopt")(adopt)
