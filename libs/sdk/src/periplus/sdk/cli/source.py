"""The file that a command runs, a pipeline or an Argo manifest, as a RunSpec."""

from __future__ import annotations

import contextlib
import json
import sys
import traceback
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from periplus.sdk.cli.outcome import Failure
from periplus_manifest.bounds import MAX_MANIFEST_BYTES

if TYPE_CHECKING:
    from periplus.dispatcher.v1.dispatcher_pb2 import RunSpec
    from periplus.sdk.compiler.manifest import Compiled

NESTED_TOO_DEEPLY = (
    "is nested too deeply to be read: split an expression of hundreds of terms, a chain of hundreds of branches, or "
    "hundreds of functions of which each calls the next"
)


class Cache(StrEnum):
    """The cache mode of the run."""

    OFF = "off"
    REFRESH = "refresh"


File = Annotated[
    str,
    typer.Argument(
        help="A .py file with a @pipeline or a hera Workflow (file.py:name if it has several), or Argo YAML (Workflow, CronWorkflow, WorkflowTemplate, with WorkflowTemplates as further documents); - is the standard input."
    ),
]
Parameters = Annotated[
    list[str] | None,
    typer.Option(
        "--parameter",
        "-p",
        metavar="NAME=VALUE",
        help="A parameter of the workflow: JSON, or text for a str. Repeatable.",
    ),
]
CacheOption = Annotated[
    Cache | None,
    typer.Option(
        "--cache",
        help="off: run every step and record nothing; refresh: run every step and replace its entry.",
    ),
]
Image = Annotated[
    str,
    typer.Option(
        "--image",
        metavar="IMAGE",
        help="The image of the steps of a pipeline that name none of their own, in place of the pipeline's.",
    ),
]


@dataclass(frozen=True)
class Source:
    """A manifest as text, values for its parameters, the archive of its code, and the directory of its project."""

    manifest: str
    directory: Path
    parameters: dict[str, str] = field(default_factory=dict)
    archive: bytes = b""


def read(file: str, parameters: list[str] | None, project: str, image: str = "") -> Source:
    """The pipeline of a .py file, compiled for a project, its hera workflow, or a manifest's text unchanged. Raises Failure."""
    loaded = _compiled_or_hera(file, parameters, project, image) if is_python(file) else []
    if not isinstance(loaded, list):
        return _pipeline(file, loaded)
    if image:
        raise Failure("names its images itself: --image is for the steps of a pipeline", where=file)
    if is_python(file):
        return Source(
            _manifest(file, loaded), Path(file.partition(".py:")[0]).parent, _values(parameters or [])
        )
    return Source(_text(file), Path(file).parent if file != "-" else Path(), _values(parameters or []))


def is_python(file: str) -> bool:
    """Whether the file is Python, a pipeline or a hera workflow, and not a manifest."""
    return file.endswith(".py") or ".py:" in file


def compiled(file: str, parameters: list[str] | None, project: str, image: str = "") -> Compiled:
    """The compiled pipeline of a file. Raises Failure, with the line of the user's code."""
    loaded = _compiled_or_hera(file, parameters, project, image)
    if isinstance(loaded, list):
        raise Failure(
            "has a workflow of hera, which is a manifest already: only pipelines are compiled",
            where=file,
            fix=f"periplus plan {file}",
        )
    return loaded


def _compiled_or_hera(
    file: str, parameters: list[str] | None, project: str, image: str
) -> Compiled | list[Any]:
    """The compiled pipeline of a file, or its hera workflows."""
    from periplus.sdk.errors import PipelineError

    values = _values(parameters or [])
    # The output of the file's own code is not part of the command's output.
    with contextlib.redirect_stdout(sys.stderr):
        try:
            from periplus.sdk.compiler.loading import load_runnable
            from periplus.sdk.compiler.manifest import compile as compile_

            found = load_runnable(file)
            if isinstance(found, list):
                return found
            return compile_(found, found.parse(values), project, image or None)
        except PipelineError as error:
            parts = [file, *([f"{error.function}()"] if error.function else []), error.argument]
            raise Failure(error.what, where=", ".join(filter(None, parts)), fix=error.fix) from error
        except (Exception, SystemExit) as error:
            raise Failure(_exception_text(error), where=_location(file, error)) from error


def spec(source: Source, cache: Cache | None) -> tuple[RunSpec, list[str]]:
    """The RunSpec with its claim, and warnings about the parts that the claim leaves out."""
    from periplus.dispatcher.v1.dispatcher_pb2 import RunSpec
    from periplus.sdk.snapshots.claim import claim
    from periplus.types.v1.step_pb2 import CACHE_MODE_OFF, CACHE_MODE_REFRESH

    run_spec = RunSpec(manifest=source.manifest, parameters=source.parameters)
    if cache:
        run_spec.cache_mode = CACHE_MODE_OFF if cache is Cache.OFF else CACHE_MODE_REFRESH
    claimed, warnings = claim(source.directory, source.archive)
    run_spec.claim.CopyFrom(claimed)
    return run_spec, warnings


def _values(parameters: list[str]) -> dict[str, str]:
    values: dict[str, str] = {}
    for parameter in parameters:
        name, equals, value = parameter.partition("=")
        if not equals or not name:
            raise Failure(f"{parameter!r} is not NAME=VALUE", where="-p", fix="-p learning_rate=0.1")
        if name in values:
            raise Failure(f"{name} is given twice", where="-p")
        values[name] = value
    return values


def _text(file: str) -> str:
    try:
        if file == "-":
            content = sys.stdin.buffer.read(MAX_MANIFEST_BYTES + 1)
        else:
            with Path(file).open("rb") as stream:
                content = stream.read(MAX_MANIFEST_BYTES + 1)
    except OSError as error:
        raise Failure(f"cannot be read: {error.strerror}", where=file) from error
    if len(content) > MAX_MANIFEST_BYTES:
        raise Failure("is larger than 1 MiB, the most that Argo accepts", where=file)
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise Failure(f"is not text: byte {error.start} is not UTF-8", where=file) from error


def _pipeline(file: str, pipeline: Compiled) -> Source:
    try:
        manifest = json.dumps(pipeline.manifest, ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        raise Failure(f"its manifest cannot be written as JSON: {error}", where=file) from error
    return Source(manifest, pipeline.root, archive=pipeline.archive)


def _manifest(file: str, workflows: list[Any]) -> str:
    """The manifests of hera's workflows. Raises Failure, with the line of the user's code."""
    from periplus.sdk import argo

    with contextlib.redirect_stdout(sys.stderr):
        try:
            return argo.manifest(workflows if len(workflows) > 1 else workflows[0])
        except (Exception, SystemExit) as error:
            raise Failure(_exception_text(error), where=_location(file, error)) from error


def _exception_text(error: BaseException) -> str:
    if isinstance(error, RecursionError):
        return f"{NESTED_TOO_DEEPLY} ({error})"
    return f"raised {traceback.format_exception_only(error)[-1].strip()}"


def _location(file: str, error: BaseException) -> str:
    """The innermost line of the user's code in a traceback."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    ours = str(Path(__file__).parents[1])
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [f for f in frames if not f.filename.startswith((ours, "<")) and "importlib" not in f.filename]
    return f"{theirs[-1].filename}:{theirs[-1].lineno}" if theirs else file
