"""From the arguments of a process to its exit code. No traceback reaches a user."""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING, NoReturn

import typer

from periplus.sdk.cli.outcome import CODES, Exit, Failure, of_call, tell

if TYPE_CHECKING:
    from collections.abc import Sequence

# What typer raises for arguments that it does not take; the class itself has no public name.
_UsageError = typer.BadParameter.__bases__[0]


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one command, and leave with its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        # Names of files and steps may hold what the terminal's encoding has no letter for.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    sys.exit(_run(given))


def _run(given: list[str]) -> int:
    try:
        return _ran(given)
    except BrokenPipeError:
        # Whoever read our output has enough of it. Without this, closing the stream would complain again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.OK
    except (typer.Abort, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
        return Exit.INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the last resort: told, and with the traceback on request
        failure = _failure(error)
    if failure.code is Exit.DEFECT and os.environ.get("PERIPLUS_DEBUG"):
        import traceback

        traceback.print_exc()
    tell(failure, as_json=_wants_json(given))
    return failure.code


def _ran(given: list[str]) -> int:
    code = application(given[0] if given else "")(args=given, prog_name="periplus", standalone_mode=False)
    sys.stdout.flush()
    return int(code or 0)


def _failure(error: Exception) -> Failure:
    if isinstance(error, Failure):
        return error
    if isinstance(error, _UsageError):
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "periplus"
        return Failure(error.format_message(), where=command, fix=f"{command} --help")  # type: ignore[attr-defined]
    refusal = sys.modules.get("periplus.sdk.client.call_error")
    if refusal and isinstance(error, refusal.CallError):
        return of_call(error)
    return Failure(
        f"this is a defect of periplus: {type(error).__name__}: {error}",
        where=" ".join(["periplus", *sys.argv[1:2]]),
        fix="run the command again with PERIPLUS_DEBUG=1, and report what it prints",
        code=Exit.DEFECT,
    )


def _wants_json(given: list[str]) -> bool:
    joined = " ".join(given)
    return any(told in joined for told in ("-o json", "-ojson", "-o=json", "--output json", "--output=json"))


# Which file holds which command. Typer builds a validator for each option of each command that it is shown, so a
# command that is named is loaded alone; help and completion see all of them.
_NOUNS = {
    "run": ("run",),
    "manifest": ("plan", "compile"),
    "runs": ("runs", "watch", "cancel"),
    "logs": ("logs",),
    "why": ("why",),
    "diff": ("diff",),
    "lineage": ("lineage",),
    "stack": ("up", "down", "doctor"),
    "argo": ("argo",),
}


def application(command: str = "") -> typer.Typer:
    """The command with all its subcommands, or with those that share a file with `command`."""
    app = typer.Typer(
        name="periplus",
        help="Run Argo workflows and Python pipelines, and leave out every step that was done before.",
        epilog=CODES,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,  # rich would be loaded for the help's frames alone
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )
    app.callback()(lambda: None)  # without it, a single command would take the place of the group
    named = [noun for noun, commands in _NOUNS.items() if command in commands]
    for noun in named or _NOUNS:
        importlib.import_module(f"periplus.sdk.cli.{noun}").add(app)
    return app
