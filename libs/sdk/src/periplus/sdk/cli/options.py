"""Options that several commands share, and the client for the configured connection."""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from periplus.sdk.cli.outcome import Exit, Failure

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.timestamp_pb2 import Timestamp

    from periplus.sdk.client import Client

LATEST = "@latest"


class Format(StrEnum):
    """The form of a command's output: for people, or one JSON document for programs."""

    TEXT = "text"
    JSON = "json"


Output = Annotated[
    Format,
    typer.Option("--output", "-o", help="text for people, or json: one document with the fields of the API."),
]
Project = Annotated[
    str,
    typer.Option(
        "--project", help="The project; default: the one that client.json or PERIPLUS_PROJECT names."
    ),
]
Run = Annotated[str, typer.Argument(help="A run's id, or @latest, or @latest~1 for the one before.")]


@contextmanager
def client(project: str = "") -> Iterator[Client]:
    """A client of the configured services. Raises Failure where none are configured."""
    # Imported here: gRPC takes a tenth of a second, and `--help` needs none of it.
    from periplus.sdk.client import Client, NotConnectedError, connection

    try:
        to = connection(project=project)
    except NotConnectedError as error:
        code = Exit.NOT_REACHABLE if error.missing else Exit.BAD_INPUT
        raise Failure(error.what, where=error.where, fix=error.fix, code=code) from error
    with Client(to) as opened:
        yield opened


def project_name(project: str) -> str:
    """The project that `client` would work in; `default` where nothing names one, as no stack was started."""
    from periplus.sdk.client import NotConnectedError, connection

    try:
        return connection(project=project).project
    except NotConnectedError:
        return project or os.environ.get("PERIPLUS_PROJECT") or "default"


def resolve(services: Client, run: str) -> str:
    """The id of a run: unchanged, or of the newest run (@latest), or of the n-th before it (@latest~n)."""
    if not run.startswith(LATEST):
        return run
    before = run.removeprefix(LATEST).removeprefix("~") or "0"
    if not before.isdigit() or int(before) > 999:
        raise Failure(f"{run} names no run", fix="give a run's id, @latest, or @latest~1 for the one before")
    runs = services.list_runs(size=int(before) + 1).runs
    if len(runs) <= int(before):
        raise Failure(
            f"there is no run {run}: the project has {len(runs)}",
            where=f"project {services.connection.project}",
            fix="periplus runs",
            code=Exit.NOT_FOUND,
        )
    return runs[int(before)].id


def local_time(stamp: Timestamp) -> str:
    """Local time to the second; empty where the timestamp is not set."""
    from datetime import UTC, datetime

    if not stamp.seconds:
        return ""
    return datetime.fromtimestamp(stamp.seconds, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def width() -> int:
    """The columns of the terminal; 0 where the output is no terminal, and lines are not shortened."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
