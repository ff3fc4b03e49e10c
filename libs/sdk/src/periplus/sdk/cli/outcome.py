"""How a command ends: its exit code, and the failure that it prints."""

from __future__ import annotations

import json
from enum import IntEnum
from typing import TYPE_CHECKING

from periplus.sdk.cli.terminal import say, say_block, say_json
from periplus.sdk.cli.text import one_line

if TYPE_CHECKING:
    from periplus.sdk.client.call_error import CallError


class Exit(IntEnum):
    """Exit codes. Scripts rely on them."""

    OK = 0
    FAILED = 1
    BAD_INPUT = 2
    NOT_REACHABLE = 3
    CANCELLED = 4
    NOT_FOUND = 5
    REFUSED = 6
    DEFECT = 70
    INTERRUPTED = 130


CODES = """\
Exit codes: 0 success; 1 the run failed, `doctor` found a problem, an image has moved, or a reproduction is not identical; 2 bad input; 3 the stack is not reachable;
4 the run was cancelled; 5 no such run, step, entry, snapshot or node; 6 not possible in this state;
70 a defect of periplus; 130 interrupted."""

_OF_CALLS = {
    "INVALID_ARGUMENT": Exit.BAD_INPUT,
    "ALREADY_EXISTS": Exit.BAD_INPUT,
    "RESOURCE_EXHAUSTED": Exit.BAD_INPUT,
    "NOT_FOUND": Exit.NOT_FOUND,
    "FAILED_PRECONDITION": Exit.REFUSED,
    "UNAVAILABLE": Exit.NOT_REACHABLE,
    "DEADLINE_EXCEEDED": Exit.NOT_REACHABLE,
    "UNAUTHENTICATED": Exit.NOT_REACHABLE,
}

# RunPhase: FAILED, ERROR, CANCELLED, UNOBSERVED.
_OF_RUNS = {4: Exit.FAILED, 5: Exit.FAILED, 6: Exit.CANCELLED, 7: Exit.FAILED}


class Failure(Exception):
    """A command failed. `where` is the file, option or service; `fix` the command or the change that helps. Both may
    be empty.
    """

    def __init__(self, what: str, *, where: str = "", fix: str = "", code: Exit = Exit.BAD_INPUT) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.fix = fix
        self.code = code


def failure_of_call(error: CallError) -> Failure:
    """The failure of a command whose call of a service failed."""
    code = _OF_CALLS.get(error.code, Exit.DEFECT)
    where = error.field or error.service
    if code is Exit.NOT_REACHABLE:
        where = f"{error.service} at {error.address}"
    elif code is Exit.DEFECT:
        return Failure(
            f"{error.service} failed: {one_line(error.message)} ({error.code})",
            where=f"{error.service} at {error.address}",
            fix=error.fix or "periplus doctor",
            code=code,
        )
    return Failure(one_line(error.message), where=where, fix=error.fix, code=code)


def exit_code_of_run(phase: int) -> Exit:
    """The exit code of a command that waited for a run."""
    return _OF_RUNS.get(phase, Exit.OK)


def print_failure(failure: Failure, *, as_json: bool) -> None:
    """Print a failure to the standard error and, `as_json`, also as the one document of the output."""
    say_block(failure.what, first="error: ", rest="  | ", error=True)
    if failure.where:
        say(f"  where: {failure.where}", error=True)
    if failure.fix:
        say(f"  fix:   {failure.fix}", error=True)
    if as_json:
        error = {
            "what": failure.what,
            "where": failure.where,
            "fix": failure.fix,
            "exit_code": int(failure.code),
        }
        say_json(json.dumps({"error": error}, indent=2))
