"""`periplus plan` and `periplus compile`: what would be run, without running it."""

from __future__ import annotations

import sys

import typer

from periplus.sdk.cli import source
from periplus.sdk.cli.options import Format, Output, Project, client, width
from periplus.sdk.cli.outcome import Failure
from periplus.sdk.cli.text import line


def plan(
    file: source.File,
    parameters: source.Parameters = None,
    cache: source.CacheOption = None,
    project: Project = "",
    output: Output = Format.TEXT,
) -> None:
    """Say of every step whether it would be run, and why; do nothing.

    \b
    Examples:
      periplus plan pipeline.py -p seed=7
      periplus plan workflow.yaml -o json
    """
    found = source.read(file, parameters)
    with client(project) as services:
        spec, warnings = source.spec(found, cache)
        made = services.plan(spec)
    if output is Format.JSON:
        from periplus.sdk.cli.document import document, show

        told = document(made)
        show({**told, "warnings": [*warnings, *made.warnings]})
        return
    from periplus.sdk.cli import planned

    for warning in [*warnings, *made.warnings]:
        print(f"warning: {line(warning)}", file=sys.stderr)
    for text in planned.told(made, width()):
        print(text)


def compile_(file: source.File, parameters: source.Parameters = None, output: Output = Format.TEXT) -> None:
    """Print the Argo manifest that a pipeline compiles to, as YAML, or with -o json as JSON.

    \b
    Examples:
      periplus compile pipeline.py > workflow.yaml
      periplus compile pipeline.py -p seed=7 -o json
    """
    if not source.is_python(file):
        raise Failure(
            "is no Python file, so there is nothing to compile", where=file, fix=f"periplus plan {file}"
        )
    compiled = source.compiled(file, parameters)
    compiled.workflow()  # hera's models of Argo's API say the same, or nothing is printed
    made = compiled.manifest
    if output is Format.JSON:
        from periplus.sdk.cli.document import show

        show(made)
        return
    # Imported here: no other command needs it.
    import yaml

    print(yaml.safe_dump(made, sort_keys=False, allow_unicode=True, width=100), end="")


def add(app: typer.Typer) -> None:
    """Put the commands of this file on the application."""
    app.command("plan")(plan)
    app.command("compile")(compile_)
