"""Options that several commands share, and the connection that they lead to."""

from __future__ import annotations

import shutil
import sys
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from periplus.sdk.cli.outcome import Exit, Failure

if TYPE_CHECKING:
    from collections.abc import Iterator

    from periplus.sdk.client import Client

LATEST = "@latest"


class Format(StrEnum):
    """What a command prints: for people, or one JSON document for programs."""

    TEXT = "text"
    JSON = "json"


Output = Annotated[
    Format,
    typer.Option(
        "--output", "-o", help="text for people, or json: one document, fields as in the contracts."
    ),
]
Project = Annotated[str, typer.Option("--project", help="The project; default: that of the stack.")]
Run = Annotated[str, typer.Argument(help="A run's id, or @latest, or @latest~1 for the one before.")]


@contextmanager
def client(project: str = "") -> Iterator[Client]:
    """The services that the environment names. Raises Failure where it names none."""
    # Imported here: gRPC takes a while, and `--help` needs none of it.
    from periplus.sdk.client import Client
    from periplus.sdk.client.connections import NotConnectedError, connection

    try:
        to = connection(project=project)
    except NotConnectedError as error:
        code = Exit.NOT_REACHABLE if error.missing else Exit.BAD_INPUT
        raise Failure(error.what, where=error.where, fix=error.fix, code=code) from error
    with Client(to) as opened:
        yield opened


def resolve(services: Client, run: str) -> str:
    """The run that is meant: its id as given, or the newest one (@latest), or the n-th before it (@latest~n)."""
    if not run.startswith(LATEST):
        return run
    before = run.removeprefix(LATEST).removeprefix("~") or "0"
    if not before.isdigit() or int(before) > 999:
        raise Failure(f"{run} names no run", fix="give a run's id, @latest, or @latest~1 for the one before")
    runs = services.list_runs(size=int(before) + 1).runs
    if len(runs) <= int(before):
        raise Failure(
            f"there is no run {run}: {len(runs)} are known",
            where=f"project {services.connection.project}",
            fix="periplus runs",
            code=Exit.NOT_FOUND,
        )
    return runs[int(before)].id


def width() -> int:
    """The columns of the terminal; 0 where the output goes elsewhere and is not cut."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
