"""`periplus plan` and `periplus compile`: the plan and the manifest of a run, without running anything."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from periplus.sdk.cli import source
from periplus.sdk.cli.options import Format, Output, Project, client, project_name, width
from periplus.sdk.cli.outcome import Failure
from periplus.sdk.cli.terminal import say, say_block
from periplus.sdk.cli.text import yaml_difference, yaml_text


def plan(
    file: source.File,
    parameters: source.Parameters = None,
    cache: source.CacheOption = None,
    image: source.Image = "",
    show_rewrite: Annotated[
        bool,
        typer.Option(
            "--show-rewrite",
            help="Also the difference between the manifest and what Argo would get, as a unified diff; with -o json both.",
        ),
    ] = False,
    project: Project = "",
    output: Output = Format.TEXT,
) -> None:
    """Show which steps would run and which are in the cache, and why. Nothing is run.

    \b
    Examples:
      periplus plan pipeline.py -p seed=7
      periplus plan hera_workflow.py:nightly
      periplus plan workflow.yaml -o json
      periplus plan workflow.yaml --show-rewrite
    """
    workflow = source.read(file, parameters, project_name(project), image)
    with client(project) as services:
        spec, warnings = source.spec(workflow, cache)
        response = services.plan_with_rewrite(spec, with_rewrite=show_rewrite)
    planned = response.plan
    if output is Format.JSON:
        from periplus.sdk.cli.document import document, print_json

        rewrite = {
            "source": json.loads(response.source or "null"),
            "submitted": json.loads(response.submitted or "null"),
        }
        print_json(
            {
                **document(planned),
                "warnings": [*warnings, *planned.warnings],
                **({"rewrite": rewrite} if show_rewrite else {}),
            }
        )
        return
    from periplus.sdk.cli import summary

    for warning in [*warnings, *planned.warnings]:
        say(f"warning: {warning}", error=True)
    say(*summary.plan_lines(planned, width()))
    if show_rewrite:
        say("")
        if response.submitted:
            say_block(yaml_difference(response.source, response.submitted, "manifest", "submitted"))
        else:
            say("nothing would be submitted: every step is cached")


def compile_(
    file: source.File,
    parameters: source.Parameters = None,
    image: source.Image = "",
    project: Project = "",
    output: Output = Format.TEXT,
) -> None:
    """Print the Argo manifest of a pipeline. It is YAML, or with -o json JSON, and names the code of its project.

    \b
    Examples:
      periplus compile pipeline.py > workflow.yaml
      periplus compile pipeline.py -p seed=7 -o json
    """
    if not source.is_python(file):
        raise Failure(
            "is not a Python file: only pipelines are compiled", where=file, fix=f"periplus plan {file}"
        )
    compiled = source.compiled(file, parameters, project_name(project), image)
    compiled.workflow()  # raises where hera's models of Argo's API would change the manifest
    manifest = compiled.manifest
    if output is Format.JSON:
        from periplus.sdk.cli.document import print_json

        print_json(manifest)
        return
    say_block(yaml_text(manifest))


def add(app: typer.Typer) -> None:
    """Add the commands of this file to the application."""
    app.command("plan")(plan)
    app.command("compile")(compile_)
