"""`periplus shadow`, `periplus adopt` and `periplus release`: what others submit, and the templates that they submit it from."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Annotated

import typer

from periplus.sdk.cli.options import Format, Output, Project, client, width
from periplus.sdk.cli.outcome import Exit, Failure
from periplus.sdk.cli.terminal import say, say_block
from periplus.sdk.cli.text import counted, duration_text, one_line, table, yaml_difference

if TYPE_CHECKING:
    from google.protobuf.duration_pb2 import Duration

    from periplus.cache.v1 import cache_pb2 as pb
    from periplus.dispatcher.v1.dispatcher_pb2 import AdoptTemplateResponse, ReleaseTemplateResponse

SECONDS_PER_DAY = 86_400
UNKNOWN = 4
"""A Verdict: it asks at a gate."""
KINDS = {"wftmpl": 1, "cron": 2}
"""TemplateKinds, by what `kubectl get` calls them."""


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


Template = Annotated[
    str,
    typer.Argument(metavar="wftmpl/NAME|cron/NAME", help="A WorkflowTemplate or CronWorkflow."),
]
Namespace = Annotated[
    str, typer.Option(help="The namespace; default: that or all of those that are observed for the project.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show what would be done.")]


def adopt(
    template: Annotated[
        str,
        typer.Argument(
            metavar="[wftmpl/NAME|cron/NAME]",
            help="A WorkflowTemplate or CronWorkflow that is rewritten; without it, history is recorded.",
        ),
    ] = "",
    namespace: Namespace = "",
    dry_run: DryRun = False,
    project: Project = "",
    output: Output = Format.TEXT,
) -> None:
    """Record what others have run, or let what they will run from a template use the cache.

    With a template, every later run of it asks the cache at gates, whoever submits it. Its own templates stay as they are, and
    `periplus release` makes it what it was.

    Without one, the Workflows that others submitted and that Argo still has, live or archived, are recorded as runs of the
    project. Those that are recorded already stay as they are.

    \b
    Examples:
      periplus adopt wftmpl/train --dry-run
      periplus adopt cron/nightly --namespace ml
      periplus adopt --dry-run
      periplus adopt --namespace ml -o json
    """
    if template:
        _adopt_template(template, namespace, dry_run, project, output)
    else:
        _adopt_history(namespace, dry_run, project, output)


def _adopt_history(namespace: str, dry_run: bool, project: str, output: Format) -> None:
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


def _adopt_template(template: str, namespace: str, dry_run: bool, project: str, output: Format) -> None:
    kind, name = _kind_and_name(template)
    with client(project) as services:
        found = services.adopt_template(kind, name, namespace, validate_only=dry_run)
    if output is Format.JSON:
        from periplus.sdk.cli.document import document

        _print_change(found, dry_run, {"steps": document(found)["steps"]})
        return
    if dry_run:
        say_block(yaml_difference(found.before, found.after, template, "adopted"))
    gated = [step for step in found.steps if step.verdict == UNKNOWN]
    for step in found.steps:
        if step.verdict != UNKNOWN:
            say(one_line(f"{step.path}: runs always: {step.reason}", width()))
    if not gated:
        say(f"{template} stays as it is: none of its steps can be cached")
        return
    done = (
        "would be adopted" if dry_run else "adopted" if found.before != found.after else "is adopted already"
    )
    say(f"{template} {done}: {counted(len(gated), 'step')} will ask the cache in every run of it")


def release(
    template: Template,
    namespace: Namespace = "",
    dry_run: DryRun = False,
    project: Project = "",
    output: Output = Format.TEXT,
) -> None:
    """Make an adopted WorkflowTemplate or CronWorkflow what it was before.

    \b
    Examples:
      periplus release wftmpl/train --dry-run
      periplus release cron/nightly
    """
    kind, name = _kind_and_name(template)
    with client(project) as services:
        found = services.release_template(kind, name, namespace, validate_only=dry_run)
    if output is Format.JSON:
        _print_change(found, dry_run, {})
        return
    if dry_run:
        say_block(yaml_difference(found.before, found.after, template, "released"))
    is_changed = found.before != found.after
    say(f"{template} {('would be released' if dry_run else 'released') if is_changed else 'is not adopted'}")


def _kind_and_name(template: str) -> tuple[int, str]:
    """The TemplateKind and the name."""
    short, _, name = template.partition("/")
    if short not in KINDS or not name:
        raise Failure(
            f"{template} is neither wftmpl/NAME nor cron/NAME",
            fix="periplus adopt wftmpl/NAME",
            code=Exit.BAD_INPUT,
        )
    return KINDS[short], name


def _print_change(
    found: AdoptTemplateResponse | ReleaseTemplateResponse, dry_run: bool, more: dict[str, object]
) -> None:
    import json

    from periplus.sdk.cli.document import print_json

    before, after = json.loads(found.before), json.loads(found.after)
    print_json(
        {
            "namespace": found.namespace,
            "changed": before != after,
            "dry_run": dry_run,
            "before": before,
            "after": after,
            **more,
        }
    )


def add(app: typer.Typer) -> None:
    """Add the commands of this file to the application."""
    app.command("shadow")(shadow)
    app.command("adopt")(adopt)
    app.command("release")(release)
