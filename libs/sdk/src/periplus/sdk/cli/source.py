"""What is to be run: a Python file with a pipeline, or an Argo manifest, made into a RunSpec."""

from __future__ import annotations

import contextlib
import json
import sys
import traceback
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from periplus.sdk.cli.outcome import Failure

if TYPE_CHECKING:
    from periplus.dispatcher.v1.dispatcher_pb2 import RunSpec
    from periplus.sdk.compiler.manifest import Compiled

LARGEST = 1 << 20  # bytes of a manifest; what Argo takes


class Cache(StrEnum):
    """Overrides the cache policy of every step."""

    OFF = "off"
    REFRESH = "refresh"


File = Annotated[
    str,
    typer.Argument(
        help="A .py file with a @pipeline (file.py:name where there are several), or Argo YAML; - reads it."
    ),
]
Parameters = Annotated[
    list[str] | None,
    typer.Option(
        "--parameter", "-p", metavar="NAME=VALUE", help="A parameter of the workflow; may be repeated."
    ),
]
CacheOption = Annotated[
    Cache | None,
    typer.Option(
        "--cache", help="off: run every step, keep nothing; refresh: run every step, replace the entries."
    ),
]


@dataclass(frozen=True)
class Source:
    """A manifest as text, values for its parameters, the archive of its code, and where its project is."""

    manifest: str
    directory: Path
    parameters: dict[str, str] = field(default_factory=dict)
    archive: bytes = b""


def read(file: str, parameters: list[str] | None) -> Source:
    """The file's pipeline compiled, or its text as it stands. Raises Failure that names the place."""
    if is_python(file):
        return _pipeline(file, compiled(file, parameters))
    return Source(_text(file), Path(file).parent if file != "-" else Path(), _values(parameters or []))


def is_python(file: str) -> bool:
    """Whether the file is to be compiled, and is not a manifest already."""
    return file.endswith(".py") or ".py:" in file


def compiled(file: str, parameters: list[str] | None) -> Compiled:
    """The file's pipeline compiled. Raises Failure that names the place."""
    from periplus.sdk.errors import PipelineError

    values = _values(parameters or [])
    # What the file prints while it is read is not part of our output.
    with contextlib.redirect_stdout(sys.stderr):
        try:
            from periplus.sdk.compiler.loading import load
            from periplus.sdk.compiler.manifest import compile as compile_

            pipeline = load(file)
            return compile_(pipeline, pipeline.parse(values))
        except PipelineError as error:
            places = [file, *([f"{error.function}()"] if error.function else []), error.argument]
            raise Failure(error.what, where=", ".join(filter(None, places)), fix=error.fix) from error
        except (Exception, SystemExit) as error:
            raise Failure(f"raised {_said(error)}", where=_place(file, error)) from error


def spec(source: Source, cache: Cache | None) -> tuple[RunSpec, list[str]]:
    """The spec with its claim, and warnings about what the claim leaves out."""
    from periplus.dispatcher.v1.dispatcher_pb2 import RunSpec
    from periplus.sdk.snapshots.claim import claim
    from periplus.types.v1.step_pb2 import CACHE_MODE_OFF, CACHE_MODE_REFRESH

    made = RunSpec(manifest=source.manifest, parameters=source.parameters)
    if cache:
        made.cache_mode = CACHE_MODE_OFF if cache is Cache.OFF else CACHE_MODE_REFRESH
    claimed, warnings = claim(source.directory, source.archive)
    made.claim.CopyFrom(claimed)
    return made, warnings


def _values(parameters: list[str]) -> dict[str, str]:
    values: dict[str, str] = {}
    for given in parameters:
        name, equals, value = given.partition("=")
        if not equals or not name:
            raise Failure(f"{given!r} is not NAME=VALUE", where="-p", fix="-p learning_rate=0.1")
        if name in values:
            raise Failure(f"{name} is given twice", where="-p")
        values[name] = value
    return values


def _text(file: str) -> str:
    try:
        if file == "-":
            content = sys.stdin.buffer.read(LARGEST + 1)
        else:
            with Path(file).open("rb") as stream:
                content = stream.read(LARGEST + 1)
    except OSError as error:
        raise Failure(f"can not be read: {error.strerror}", where=file) from error
    if len(content) > LARGEST:
        raise Failure("is larger than 1 MiB, which Argo does not take", where=file)
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise Failure(f"is no text: byte {error.start} is not UTF-8", where=file) from error


def _pipeline(file: str, made: Compiled) -> Source:
    try:
        manifest = json.dumps(made.manifest, ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        raise Failure(f"its manifest is no JSON: {error}", where=file) from error
    return Source(manifest, made.root, archive=made.archive)


def _said(error: BaseException) -> str:
    return traceback.format_exception_only(error)[-1].strip()


def _place(file: str, error: BaseException) -> str:
    """The line of the user's code nearest to where it went wrong."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    ours = str(Path(__file__).parents[1])
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [f for f in frames if not f.filename.startswith((ours, "<")) and "importlib" not in f.filename]
    return f"{theirs[-1].filename}:{theirs[-1].lineno}" if theirs else file
