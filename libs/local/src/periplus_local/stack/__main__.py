"""`python -m periplus_local.stack up|down|doctor`: the stack without the `periplus` command."""

from __future__ import annotations

import argparse
import json
import os
import sys
from contextlib import suppress
from dataclasses import asdict

from periplus_local.stack import (
    HeldError,
    HomeError,
    ProcessFailedError,
    ProgramMissingError,
    RunningStack,
    StateChange,
    detach,
    doctor,
    down,
    print_change,
    up,
)

_FAILURES = (HeldError, HomeError, ProcessFailedError, ProgramMissingError, TimeoutError)


def main(arguments: list[str]) -> int:
    """Run one command. Returns the exit code: 0 for success, 1 for a failure or a finding of `doctor`."""
    parser = argparse.ArgumentParser(prog="python -m periplus_local.stack")
    parser.add_argument("command", choices=("up", "down", "doctor"))
    parser.add_argument("--home", help="the folder of the stack's data; default $PERIPLUS_HOME or .periplus")
    parser.add_argument("--detach", action="store_true", help="return once all is ready")
    parser.add_argument("--json", action="store_true", help="doctor: findings as JSON")
    parser.add_argument("--report", type=int, default=-1, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    try:
        return _run(options)
    except _FAILURES as error:
        _report(options.report, {"failed": str(error)})
        # The end of the log was printed with the state change.
        sys.stderr.write(f"{str(error).splitlines()[0]}\n")
        return 1


def _run(options: argparse.Namespace) -> int:
    if options.command == "doctor":
        return _doctor(options.home, as_json=options.json)
    if options.command == "down":
        stopped = down(options.home)
        _say(f"stopped {stopped.describe()}" if stopped else "nothing was running")
    elif options.detach:
        _say(f"running: {detach(options.home, print_change).describe()}")
    else:
        _up(options)
    return 0


def _up(options: argparse.Namespace) -> None:
    def on_change(change: StateChange) -> None:
        print_change(change)
        _report(options.report, asdict(change))

    def on_ready(running: RunningStack) -> None:
        _say(running.describe())
        _report(options.report, {"ready": True})
        if options.report != -1:
            os.close(options.report)
            options.report = -1

    up(options.home, on_change, on_ready)


def _report(descriptor: int, message: object) -> None:
    """Send a line of JSON to the process that started this one; without effect once that has closed its end."""
    if descriptor != -1:
        try:
            os.write(descriptor, json.dumps(message).encode() + b"\n")
        except BrokenPipeError:
            return


def _say(text: str) -> None:
    with suppress(BrokenPipeError):
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()


def _doctor(home: str | None, *, as_json: bool) -> int:
    findings = doctor(home)
    if as_json:
        _say(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        for finding in findings:
            _say(finding.line())
    return 0 if all(finding.ok for finding in findings) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
