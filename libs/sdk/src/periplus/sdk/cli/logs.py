"""`periplus logs`: what the steps of a run print."""

from __future__ import annotations

from typing import Annotated

import typer

from periplus.sdk.cli.options import Format, Output, Project, Run, client, resolve
from periplus.sdk.cli.text import line, plain


def logs(
    run: Run = "@latest",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run ends.")] = False,
    step: Annotated[str, typer.Option("--step", help="Only those of this step's path.")] = "",
    project: Project = "",
    output: Output = Format.TEXT,
) -> None:
    """Print what the steps of a run print, each line with its step; with --step as it is.

    \b
    Examples:
      periplus logs
      periplus logs digits-x7k2p --step 'train(2)' --follow
    """
    with client(project) as services:
        lines = services.logs(resolve(services, run), step=step, follow=follow)
        if output is Format.JSON:
            from periplus.sdk.cli.document import document, show

            show({"lines": [document(one) for one in lines]})
            return
        for one in lines:
            text = plain(one.line)
            print(text if step else f"{line(one.step)} | {text}", flush=True)


def add(app: typer.Typer) -> None:
    """Put the commands of this file on the application."""
    app.command("logs")(logs)
