"""`periplus why`: why a step was or was not served from the cache."""

from __future__ import annotations

from typing import Annotated

import typer

from periplus.sdk.cli.options import Format, Output, Project, Run, client, resolve, width
from periplus.sdk.cli.text import line, short, table


def why(
    run: Run,
    step: Annotated[str, typer.Argument(help="The step's path in the run: train, main.train, train(2).")],
    project: Project = "",
    output: Output = Format.TEXT,
) -> None:
    """Say why a step ran: the nearest result that the cache had, and each field that differs from it.

    \b
    Examples:
      periplus why @latest train
      periplus why digits-x7k2p 'train(2)' -o json
    """
    with client(project) as services:
        chosen = resolve(services, run)
        told = services.explain(chosen, step)
    if output is Format.JSON:
        from periplus.sdk.cli.document import document, show

        show({"run": chosen, "step": step, **document(told)})
        return
    verdict = "was served from the cache" if told.hit else "was not served from the cache"
    print(f"{line(step)} of {line(chosen)} {verdict}: {line(told.reason)}")
    if told.producer_run:
        which = "made by" if told.hit else "the nearest result was made by"
        print(f"{which} {line(told.producer_step)} of {line(told.producer_run)}")
    if told.changes:
        rows = [(change.field, _value(change, "old"), _value(change, "new")) for change in told.changes]
        print(*["", *table(("FIELD", "BEFORE", "NOW"), rows, width())], sep="\n")


def _value(change: object, side: str) -> str:
    return line(short(getattr(change, side)), 60) if change.HasField(side) else "-"  # type: ignore[attr-defined]


def add(app: typer.Typer) -> None:
    """Put the command of this file on the application."""
    app.command("why")(why)
