"""Run every workflow of a folder on an Argo and print, per manifest, what became of it.

    python -m tests.conformance.folder DIR [--seconds N] [-o json]

Templates in the folder are created first. A manifest
  ran as expected  when it succeeded, or ended in any way where its own label says that it may;
  is refused       by the field that keeps it out;
  needs            a program, a Python module or a network that this machine does not have;
  runs long        when it has not ended after N seconds (60), and is then stopped;
  differs          when it ended otherwise.
Steps that wait for a person are answered. The command ends with 1 when some manifest differs, with 2 when there
is none. It runs on the Argo that ARGO_SERVER names, else on a local one of its own.
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

from periplus_local.argo.testing import Client, Serving

from .corpus import manifests
from .crowd import run
from .deeds import TEMPLATES
from .outcome import TOLD, Outcome
from .stores import settings, store
from .theirs import theirs

SLOTS = 32  # most steps of examples sleep
PROGRESS_SECONDS = 10.0


@contextlib.contextmanager
def argo() -> Iterator[Client]:
    """The server that ARGO_SERVER names, else a local one on a fresh store."""
    if "ARGO_SERVER" in os.environ:
        yield theirs()
        return
    with (
        tempfile.TemporaryDirectory(dir="/var/tmp", prefix="conformance-") as home,
        store(Path(home) / "s3") as s3,
        Serving(settings(Path(home) / "argo", s3, slots=SLOTS)) as client,
    ):
        yield client


def summary(outcomes: list[Outcome]) -> str:
    """How many came to what, and the shares."""
    counts = Counter(outcome.kind for outcome in outcomes)
    expected, refused = counts["expected"], counts["refused"]
    parts = [f"{counts[kind]} {told}" for kind, told in TOLD.items() if counts[kind]]
    told = f"{len(outcomes)} manifests: {', '.join(parts)}"
    taken = len(outcomes) - refused
    shares = f"{expected / len(outcomes):.0%} of all ran as expected"
    return f"{told}; {shares}" + (f", {expected / taken:.0%} of those that were taken" if taken else "")


def as_json(outcomes: list[Outcome]) -> str:
    """All that is known, for programs."""
    listed = [asdict(outcome) for outcome in sorted(outcomes, key=lambda outcome: outcome.path)]
    return json.dumps(
        {"counts": Counter(outcome.kind for outcome in outcomes), "manifests": listed}, indent=1
    )


class Progress:
    """How far a long run is, on stderr: in place on a terminal, else in a line now and then."""

    def __init__(self, total: int) -> None:
        """So many manifests are to come."""
        self._total, self._done, self._told = total, 0, time.monotonic()

    def one_more(self) -> None:
        """One manifest is done."""
        self._done += 1
        if sys.stderr.isatty():
            end = "\n" if self._done == self._total else ""
            sys.stderr.write(f"\r{self._done} of {self._total}{end}")
        elif time.monotonic() - self._told > PROGRESS_SECONDS:
            self._told = time.monotonic()
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
    outcomes, progress = [], Progress(sum(each.kind not in TEMPLATES for each in found))
    with argo() as client:
        for outcome in run(client, found, options.seconds):
            outcomes.append(outcome)
            progress.one_more()
            if options.output == "text":
                sys.stdout.write(f"{outcome}\n")
                sys.stdout.flush()
    sys.stdout.write((summary(outcomes) if options.output == "text" else as_json(outcomes)) + "\n")
    return 1 if any(outcome.kind == "differs" for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
