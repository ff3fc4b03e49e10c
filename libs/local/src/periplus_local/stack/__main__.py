"""`python -m periplus_local.stack up|down|doctor`: the stack without the `periplus` command."""

from __future__ import annotations

import argparse
import json
import os
import sys
from contextlib import suppress
from dataclasses import asdict

from periplus_local.stack import (
    Change,
    HeldError,
    HomeError,
    PartFailedError,
    ProgramMissingError,
    Running,
    detach,
    doctor,
    down,
    print_change,
    up,
)

_FAILURES = (HeldError, HomeError, PartFailedError, ProgramMissingError, TimeoutError)


def main(arguments: list[str]) -> int:
    """Run one command. Returns the exit code: 0 done, 1 something is wrong."""
    parser = argparse.ArgumentParser(prog="python -m periplus_local.stack")
    parser.add_argument("command", choices=("up", "down", "doctor"))
    parser.add_argument("--home", help="where everything is; default $PERIPLUS_HOME or .periplus")
    parser.add_argument("--detach", action="store_true", help="return once all is ready")
    parser.add_argument("--json", action="store_true", help="doctor: findings as JSON")
    parser.add_argument("--report", type=int, default=-1, help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    try:
        return _run(asked)
    except _FAILURES as error:
        _report(asked.report, {"failed": str(error)})
        # The end of the log was told with the part's change.
        sys.stderr.write(f"{str(error).splitlines()[0]}\n")
        return 1


def _run(asked: argparse.Namespace) -> int:
    if asked.command == "doctor":
        return _doctor(asked.home, as_json=asked.json)
    if asked.command == "down":
        stopped = down(asked.home)
        _say(f"stopped {stopped.told()}" if stopped else "nothing was running")
    elif asked.detach:
        _say(f"running: {detach(asked.home, print_change).told()}")
    else:
        _up(asked)
    return 0


def _up(asked: argparse.Namespace) -> None:
    def on_change(change: Change) -> None:
        print_change(change)
        _report(asked.report, asdict(change))

    def on_ready(running: Running) -> None:
        _say(running.told())
        _report(asked.report, {"ready": True})
        if asked.report != -1:
            os.close(asked.report)
            asked.report = -1

    up(asked.home, on_change, on_ready)


def _report(descriptor: int, told: object) -> None:
    """Tell the process that started us, for as long as it listens."""
    if descriptor != -1:
        try:
            os.write(descriptor, json.dumps(told).encode() + b"\n")
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
