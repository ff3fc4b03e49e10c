"""From the arguments of a process to its exit code. Users get no traceback unless PERIPLUS_DEBUG is set."""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING, NoReturn

import typer

from periplus.sdk.cli.outcome import CODES, Exit, Failure, failure_of_call, print_failure
from periplus.sdk.cli.terminal import say

if TYPE_CHECKING:
    from collections.abc import Sequence

# Typer raises a subclass of this for wrong arguments; the class itself has no public name.
_UsageError = typer.BadParameter.__bases__[0]


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one command, and exit with its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        # Names of files and steps may have characters that the terminal's encoding cannot write.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    sys.exit(_exit_code(words))


def _exit_code(words: list[str]) -> int:
    try:
        return _run(words)
    except BrokenPipeError:
        # The reader of the output, such as `head`, has closed it. Without this, Python prints an error when it
        # closes the stream.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.OK
    except (typer.Abort, KeyboardInterrupt):
        say("interrupted", error=True)
        return Exit.INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the last resort: reported, with a traceback if PERIPLUS_DEBUG is set
        failure = _failure(error)
    if failure.code is Exit.DEFECT and os.environ.get("PERIPLUS_DEBUG"):
        import traceback

        traceback.print_exc()
    print_failure(failure, as_json=_wants_json(words))
    return failure.code


def _run(words: list[str]) -> int:
    code = application(words[0] if words else "")(args=words, prog_name="periplus", standalone_mode=False)
    sys.stdout.flush()
    return int(code or 0)


def _failure(error: Exception) -> Failure:
    if isinstance(error, Failure):
        return error
    if isinstance(error, _UsageError):
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "periplus"
        return Failure(error.format_message(), where=command, fix=f"{command} --help")  # type: ignore[attr-defined]
    # If the module is not imported, no call was made; importing it here would load gRPC.
    calls = sys.modules.get("periplus.sdk.client.call_error")
    if calls and isinstance(error, calls.CallError):
        return failure_of_call(error)
    return Failure(
        f"this is a defect of periplus: {type(error).__name__}: {error}",
        where=" ".join(["periplus", *sys.argv[1:2]]),
        fix="run the command again with PERIPLUS_DEBUG=1, and report what it prints",
        code=Exit.DEFECT,
    )


def _wants_json(words: list[str]) -> bool:
    command = " ".join(words)
    return any(
        option in command for option in ("-o json", "-ojson", "-o=json", "--output json", "--output=json")
    )


# The commands of each module. Typer builds a validator for each option of each command that is added, so that only
# the module of the command in hand is loaded; help and completion load all of them.
_COMMANDS = {
    "run": ("run",),
    "manifest": ("plan", "compile"),
    "runs": ("runs", "watch", "cancel", "logs"),
    "cache": ("cache", "why"),
    "lineage": ("lineage", "diff"),
    "observed": ("shadow", "adopt", "release"),
    "reproduction": ("reproduce", "rollback"),
    "snapshot": ("snapshot",),
    "images": ("images",),
    "stack": ("up", "down", "doctor"),
    "argo": ("argo",),
}


def application(command: str = "") -> typer.Typer:
    """The application with all commands, or with those of the module that has `command`."""
    app = typer.Typer(
        name="periplus",
        help="Run Argo workflows and Python pipelines, and skip every step whose result is in the cache.",
        epilog=CODES,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,  # rich would be loaded for the help's frames alone
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )
    app.callback()(lambda: None)  # without it, a single command would take the place of the group
    modules = [module for module, commands in _COMMANDS.items() if command in commands]
    for module in modules or _COMMANDS:
        importlib.import_module(f"periplus.sdk.cli.{module}").add(app)
    return app
