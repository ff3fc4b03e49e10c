"""What runs inside a step: `python3 periplus-runner module:function` calls the function on the step's inputs.

Values come in by environment variables and files, never as code; see ports.py for their names. It needs Python's
standard library; a package is imported by the user's code, or with a value whose annotation names one of it.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from periplus.sdk import discovery
from periplus.sdk.errors import MismatchError, PipelineError
from periplus.sdk.pipelines import ports
from periplus.sdk.pipelines.definition import StepDefinition
from periplus.sdk.pipelines.steps import Step
from periplus.sdk.values.annotations import type_name
from periplus.sdk.values.parameters import (
    dumps,
    dumps_fan_out_result,
    dumps_items,
    loads_gathered,
    loads_parameter,
)
from periplus.sdk.values.schema import unwrap

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from types import TracebackType

    from periplus.sdk.pipelines.ports import Port

USER_CODE_FAILED = 1
BAD_VALUE = 2
"""Exit codes: the user's code raised, or an input or output is not what its annotation says."""
TERMINATION_LOG = Path("/dev/termination-log")
MAX_MESSAGE_CHARACTERS = 1_000
MAX_NAMED_ARGUMENTS = 3
"""Arguments of a program that may be the script that it runs: `python -u script.py`."""


def run_step() -> int:
    """Run the step that this process was started for, and return the exit code."""
    # The rest of the SDK, where the image has it, for a step that calls the services itself.
    sdk = sys.modules["periplus.sdk"].__path__
    installed = [f"{folder}/sdk" for folder in sys.modules["periplus"].__path__]
    sdk.extend(folder for folder in installed if folder not in sdk)
    return main(sys.argv[1:], os.environ)


def main(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run one step, and return the exit code: 0, 1 when the user's code raised, 2 when its inputs or outputs are
    not what its annotations say.
    """
    if len(arguments) != 1 or ":" not in arguments[0]:
        _print_error("usage: python3 periplus-runner module:function")
        return BAD_VALUE
    if (protocol := environment.get(ports.PROTOCOL_VARIABLE, ports.PROTOCOL)) != ports.PROTOCOL:
        _print_error(
            f"this runner has protocol {ports.PROTOCOL}, and the manifest protocol {protocol}\n  fix: compile it again"
        )
        return BAD_VALUE
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # so that a log can be followed while the step runs
    try:
        _run(arguments[0], environment)
    except PipelineError as wrong:
        _print_error(str(wrong))
        return BAD_VALUE
    except _UserError as raised:
        import traceback

        traceback.print_exception(raised.error)
        if isinstance(raised.error, ModuleNotFoundError):
            _print_error(str(_missing_module(raised.error)))
        elif missing := _missing_file(raised.error, environment.get(ports.CODE_VARIABLE)):
            _print_error(str(missing))
        else:
            # Not its text, which may hold a secret: the message is stored and published, and read by more than the log.
            _leave_message(f"the step raised {type(raised.error).__qualname__}")
        return USER_CODE_FAILED
    return 0


def _run(entry: str, environment: Mapping[str, str]) -> None:
    if requirements := environment.get(ports.REQUIREMENTS_VARIABLE):
        from periplus.sdk.step_packages import add_packages

        add_packages(requirements)
    code = environment.get(ports.CODE_VARIABLE)
    # After the packages were installed, and before anything of the user's runs.
    used = discovery.start(entry, environment, code)
    if code:
        sys.path.insert(0, code)
    step = _find(entry)
    used.imported()
    values = {port.name: _read(step, port, environment) for port in step.inputs}
    result = _call(step, values)
    for port, value in _results(step, result):
        _write(step, port, value, environment)
    if report_to := environment.get(ports.DISCOVERED_VARIABLE):
        discovery.write(used.report(), report_to)


class _UserError(Exception):
    """Carries what the user's code raised past the runner's own frames."""

    def __init__(self, error: BaseException) -> None:
        self.error = error
        super().__init__()


def _find(entry: str) -> StepDefinition:
    module_name, _, name = entry.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as raised:  # noqa: BLE001 - whatever the user's code raises, it is type_name as theirs
        _raise_users(raised)
    found = getattr(module, name, None)
    if not isinstance(found, Step):
        raise PipelineError(f"{module_name} has no step {name}", fix="decorate the function with @step")
    return found.definition


def _call(step: StepDefinition, values: dict[str, Any]) -> Any:
    try:
        return step.function(**values)
    except Exception as raised:  # noqa: BLE001 - shown as an error of the user's code
        _raise_users(raised)


def _raise_users(raised: Exception) -> NoReturn:
    raise _UserError(raised.with_traceback(_users_frames(raised.__traceback__))) from None


def _users_frames(frames: TracebackType | None) -> TracebackType | None:
    """The traceback from the first frame that belongs neither to this module nor to the import system, without the hooks."""
    last = frames
    while last is not None:
        if (
            last.tb_next is not None
            and last.tb_next.tb_frame.f_globals.get("__package__") == discovery.__name__
        ):
            last.tb_next = last.tb_next.tb_next
        else:
            last = last.tb_next
    first = frames
    while first is not None and (
        first.tb_frame.f_globals.get("__spec__") is __spec__
        or first.tb_frame.f_code.co_filename.startswith("<frozen importlib")
        or first.tb_frame.f_code.co_filename == importlib.__file__
    ):
        first = first.tb_next
    return first or frames


def _read(step: StepDefinition, port: Port, environment: Mapping[str, str]) -> Any:
    try:
        if port.format is not None:
            return port.format.read(Path(_variable(ports.INPUT_VARIABLE + port.name, environment)))
        gathered = environment.get(ports.GATHERED_VARIABLE + port.name)
        if gathered is not None:
            return loads_gathered(gathered, port.annotation)
        return loads_parameter(_variable(ports.PARAMETER_VARIABLE + port.name, environment), port.annotation)
    except ModuleNotFoundError as missing:
        wanted = _missing_module(missing)
        raise PipelineError(wanted.what, function=step.name, argument=port.name, fix=wanted.fix) from missing
    except (PipelineError, OSError, ValueError) as wrong:
        what = wrong.what if isinstance(wrong, PipelineError) else f"cannot be read: {wrong}"
        raise PipelineError(what, function=step.name, argument=port.name) from wrong


def _missing_file(error: BaseException, code: str | None) -> PipelineError | None:
    """What to do about a file beside the code that did not travel; None for another error."""
    if not code:
        return None
    folder = Path(code).absolute()
    for named in _named_files(error):
        path = Path(named).absolute()
        if path.is_relative_to(folder) and not path.exists():
            name = path.relative_to(folder).as_posix()
            return PipelineError(
                f"{name} did not travel with the step's code: only modules do, and the files that are declared",
                fix=f'declare it, from the folder of the step\'s module, as @step(files=["{path.name}"]), or for all steps in '
                f'pyproject.toml, from its folder, under [tool.periplus] as files = ["{name}"]',
            )
    return None


def _named_files(error: BaseException | None) -> Iterator[str]:
    """The files that an error, or one that it came from, did not find; and the arguments of a program that failed."""
    chain: list[BaseException] = []
    while error is not None and error not in chain:
        chain.append(error)
        if isinstance(error, FileNotFoundError) and isinstance(error.filename, str | os.PathLike):
            yield os.fspath(error.filename)
        if type(error).__name__ == "CalledProcessError":  # of subprocess, which is not imported for it
            command = getattr(error, "cmd", ())
            yield from (
                command.split()
                if isinstance(command, str)
                else map(os.fsdecode, command[:MAX_NAMED_ARGUMENTS])
            )
        error = error.__cause__ or error.__context__


def _missing_module(error: ModuleNotFoundError) -> PipelineError:
    name = (error.name or str(error)).partition(".")[0]
    return PipelineError(
        f"the module {name} is not in this step's environment",
        fix='run the step in an image that has it, as @step(image="…"), or name a file of pip\'s with hashes, as '
        '@step(requirements="requirements.lock")',
    )


def _results(step: StepDefinition, result: Any) -> list[tuple[Port, Any]]:
    """Each output with the part of the result that it takes."""
    if not step.outputs:
        if result is not None:
            raise PipelineError(
                f"returned {type(result).__qualname__}, its annotation says None", function=step.name
            )
        return []
    if not step.returns_record:
        return [(step.outputs[0], result)]
    names = [port.name for port in step.outputs]
    if getattr(result, "_fields", None) != tuple(names):
        raise PipelineError(
            f"returned {type(result).__qualname__}, its annotation says a NamedTuple of {', '.join(names)}",
            function=step.name,
        )
    return [(port, getattr(result, port.name)) for port in step.outputs]


def _write(step: StepDefinition, port: Port, value: Any, environment: Mapping[str, str]) -> None:
    try:
        if ports.FAN_OUT_VARIABLE + port.name in environment:
            path = _output(ports.FAN_OUT_VARIABLE + port.name, environment)
            path.write_text(dumps_fan_out_result(value, port.annotation), encoding="utf-8")
            return
        path = _output(ports.OUTPUT_VARIABLE + port.name, environment)
        if port.format is not None:
            port.format.write(value, path)
            return
        path.write_text(dumps(value, port.annotation), encoding="utf-8")
        if ports.ITEMS_VARIABLE + port.name in environment:
            _output(ports.ITEMS_VARIABLE + port.name, environment).write_text(
                dumps_items(value, port.annotation), encoding="utf-8"
            )
    except (PipelineError, OSError) as wrong:
        what = wrong.what if isinstance(wrong, PipelineError) else f"cannot be written: {wrong}"
        fix = wrong.fix if isinstance(wrong, PipelineError) else ""
        if isinstance(wrong, MismatchError) and not fix:
            fix = f"return {type_name(unwrap(port.annotation))}, or annotate the type that it returns"
        argument = "return" if port.name == "output" else f"return, field {port.name}"
        raise PipelineError(what, function=step.name, argument=argument, fix=fix) from wrong


def _output(variable: str, environment: Mapping[str, str]) -> Path:
    path = Path(_variable(variable, environment))
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _variable(name: str, environment: Mapping[str, str]) -> str:
    if name not in environment:
        raise PipelineError(
            f"the environment variable {name} is not set",
            fix="run it as the container of its compiled template",
        )
    return environment[name]


def _print_error(text: str) -> None:
    sys.stderr.write(f"periplus: {text}\n")
    _leave_message(f"periplus: {text}")


def _leave_message(text: str) -> None:
    """Leave the message of a failure where Kubernetes and Argo read it: it becomes part of the step's message."""
    message = re.sub(r"\s*\n\s*(?=fix: )", "; ", text.strip())
    # Only a file that is there: outside of Kubernetes, /dev is the machine's.
    with contextlib.suppress(OSError), TERMINATION_LOG.open("r+", encoding="utf-8", errors="replace") as log:
        log.truncate()
        log.write(" ".join(message.split())[:MAX_MESSAGE_CHARACTERS])


if __name__ == "__main__":
    raise SystemExit(run_step())
