"""`periplus diff`: how two runs differ."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from periplus.sdk.cli.options import Format, Output, Project, client, resolve, width
from periplus.sdk.cli.text import line, short, table

if TYPE_CHECKING:
    from periplus.lineage.v1.lineage_pb2 import RunChange
    from periplus.sdk.client import Client

SNAPSHOT = "snapshot"


def diff(
    old: Annotated[str, typer.Argument(help="The older run: its id, or @latest~1.")],
    new: Annotated[str, typer.Argument(help="The newer run.")] = "@latest",
    project: Project = "",
    output: Output = Format.TEXT,
) -> None:
    """Say how two runs differ: parameters, steps, inputs, outputs, and the code and environment they claimed.

    \b
    Examples:
      periplus diff @latest~1 @latest
      periplus diff digits-x7k2p digits-9q4md -o json
    """
    with client(project) as services:
        before, after = resolve(services, old), resolve(services, new)
        changes = list(services.diff_runs(before, after).changes)
        claimed = _claimed(services, changes)
    if output is Format.JSON:
        from periplus.sdk.cli.document import document, show

        told: dict[str, Any] = {"old": before, "new": after}
        show(told | {"changes": [document(c) for c in changes], "snapshot": [document(c) for c in claimed]})
        return
    if not changes:
        print(f"{line(before)} and {line(after)} do not differ")
        return
    rows = [(c.step or "(run)", c.field, _value(c, "old"), _value(c, "new")) for c in changes]
    print(*table(("STEP", "FIELD", line(before), line(after)), rows, width()), sep="\n")
    if claimed:
        lines = [(c.field, _value(c, "old"), _value(c, "new")) for c in claimed]
        print(*["", *table(("CODE AND ENVIRONMENT", "OLD", "NEW"), lines, width())], sep="\n")


def _claimed(services: Client, changes: list[RunChange]) -> list[Any]:
    """What differs between the runs' snapshots, where they have two."""
    for change in changes:
        if not change.step and change.field == SNAPSHOT and change.old and change.new:
            return list(services.diff_snapshots(change.old, change.new).changes)
    return []


def _value(change: Any, side: str) -> str:
    return line(short(getattr(change, side)), 60) if change.HasField(side) else "-"


def add(app: typer.Typer) -> None:
    """Put the command of this file on the application."""
    app.command("diff")(diff)
