"""Run every workflow of a folder on an Argo and print the outcome of each manifest.

    python -m tests.conformance.folder DIR [--seconds N] [-o json]

Templates in the folder are created first. A manifest
  ran as expected  when it succeeded, or ended in any way and has the label that allows that;
  is refused       because of the field that is printed;
  needs            a program, a Python module or a network that this machine does not have;
  runs long        when it has not ended after N seconds (60), and is then stopped;
  differs          when it ended otherwise.
Steps that wait for a person are answered. The exit code is 1 when some manifest differs, and 2 when there is none.
It runs on the Argo that ARGO_SERVER names, else on a local one of its own.
"""

import argparse
import contextlib
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from periplus_local.argo.testing import ArgoThread, Client

from .folder_run import run_manifests
from .manifest_files import manifests
from .outcome import DESCRIPTIONS, Outcome
from .real_argo import real_argo
from .s3_store import argo_settings, s3_store
from .scenario import TEMPLATE_PATHS

SLOTS = 32  # more than processors: most steps of Argo's examples sleep
PROGRESS_SECONDS = 10.0


@contextlib.contextmanager
def argo() -> Iterator[Client]:
    """The server that ARGO_SERVER names, else a local one on a fresh store."""
    if "ARGO_SERVER" in os.environ:
        yield real_argo()
        return
    with (
        tempfile.TemporaryDirectory(dir="/var/tmp", prefix="conformance-") as home,
        s3_store(Path(home) / "s3") as s3,
        ArgoThread(argo_settings(Path(home) / "argo", s3, slots=SLOTS)) as client,
    ):
        yield client


def summary(outcomes: list[Outcome]) -> str:
    """The number of manifests per kind of outcome, and the shares that ran as expected."""
    counts = Counter(outcome.kind for outcome in outcomes)
    expected, accepted = counts["expected"], len(outcomes) - counts["refused"]
    parts = [f"{counts[kind]} {description}" for kind, description in DESCRIPTIONS.items() if counts[kind]]
    text = f"{len(outcomes)} manifests: {', '.join(parts)}; {expected / len(outcomes):.0%} ran as expected"
    return text + (f", {expected / accepted:.0%} of those that were not refused" if accepted else "")


def as_json(outcomes: list[Outcome]) -> str:
    """All outcomes as JSON."""
    listed = [asdict(outcome) for outcome in sorted(outcomes, key=lambda outcome: outcome.path)]
    return json.dumps(
        {"counts": Counter(outcome.kind for outcome in outcomes), "manifests": listed}, indent=1
    )


class Progress:
    """The progress of a run on stderr: in place on a terminal, else a line every PROGRESS_SECONDS."""

    def __init__(self, total: int) -> None:
        """`total` is the number of manifests that are run."""
        self._total, self._done, self._printed_at = total, 0, time.monotonic()

    def add(self) -> None:
        """Count one manifest as done."""
        self._done += 1
        if sys.stderr.isatty():
            end = "\n" if self._done == self._total else ""
            sys.stderr.write(f"\r{self._done} of {self._total}{end}")
        elif time.monotonic() - self._printed_at > PROGRESS_SECONDS:
            self._printed_at = time.monotonic()
            sys.stderr.write(f"{self._done} of {self._total}\n")
        sys.stderr.flush()


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=60, help="how long a workflow may take")
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text")
    options = parser.parse_args()
    found = manifests(options.folder) if options.folder.is_dir() else []
    if not found:
        sys.stderr.write(f"{options.folder}: there is no manifest of Argo's in a file .yaml, .yml or .json\n")
        return 2
    outcomes, progress = [], Progress(sum(each.kind not in TEMPLATE_PATHS for each in found))
    with argo() as client:
        for outcome in run_manifests(client, found, options.seconds):
            outcomes.append(outcome)
            progress.add()
            if options.output == "text":
                sys.stdout.write(f"{outcome}\n")
                sys.stdout.flush()
    sys.stdout.write((summary(outcomes) if options.output == "text" else as_json(outcomes)) + "\n")
    return 1 if any(outcome.kind == "differs" for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
