"""A stack for a benchmark (`periplus up` with a home in a temporary folder), and how times are measured and printed."""

import json
import os
import signal
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from periplus.dispatcher.v1 import dispatcher_pb2
from periplus.sdk.client import Client, Connection, connection
from periplus.types.v1 import step_pb2
from periplus_local.stack.running_process import tied_to_this_process

PERIPLUS = str(Path(sys.executable).parent / "periplus")
READY = "Ctrl-C stops everything"
WAIT_SECONDS = 180.0


@dataclass
class Stack:
    """A running stack."""

    home: Path
    process: subprocess.Popen[str]
    startup_seconds: float
    """From the start of `periplus up` until it prints that everything is ready."""

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables for `periplus` commands on this stack."""
        return os.environ | {"PERIPLUS_HOME": str(self.home), "COLUMNS": "120"}

    @property
    def connection(self) -> Connection:
        return connection({"PERIPLUS_HOME": str(self.home)})

    def client(self) -> Client:
        return Client(self.connection)

    def processes(self) -> list[tuple[str, psutil.Process]]:
        """Every process of the stack, including `periplus up`, with the name of its program."""
        top = psutil.Process(self.process.pid)
        return [(program(each), each) for each in (top, *top.children(recursive=True))]


def program(process: psutil.Process) -> str:
    """A readable name of a process."""
    line = process.cmdline()
    if "-m" in line:
        return line[line.index("-m") + 1]
    name = Path(line[0]).name if line else process.name()
    return "periplus up" if "python" in name else name.split(":")[0]


@contextmanager
def up(home: Path, *arguments: str) -> Iterator[Stack]:
    """Run `periplus up` until the block is left. If it does not start, the error shows its log."""
    log = home.with_suffix(".log")
    environment = os.environ | {"PERIPLUS_HOME": str(home)}
    began = time.perf_counter()
    with log.open("w") as output:
        process = subprocess.Popen(
            tied_to_this_process([PERIPLUS, "up", *arguments], signal.SIGTERM),
            env=environment,
            stdout=output,
            stderr=output,
            text=True,
            cwd=home.parent,
        )
    try:
        while READY not in log.read_text():
            if process.poll() is not None or time.perf_counter() - began > WAIT_SECONDS:
                raise SystemExit(f"the stack did not start:\n{log.read_text()}")
            time.sleep(0.01)
        yield Stack(home, process, time.perf_counter() - began)
    finally:
        process.terminate()
        process.wait(60)


def run_spec(
    manifest: Mapping[str, object], parameters: Mapping[str, str] | None = None
) -> dispatcher_pb2.RunSpec:
    return dispatcher_pb2.RunSpec(
        project="default", manifest=json.dumps(manifest), parameters=dict(parameters or {})
    )


def run_to_end(client: Client, spec: dispatcher_pb2.RunSpec) -> dispatcher_pb2.SubmitRunResponse:
    """Submit a run, watch it until it finishes, and check that it succeeded."""
    accepted = client.submit(spec, str(uuid.uuid4()))
    phase = accepted.phase
    for change in client.watch(accepted.run, wait_seconds=60):
        phase = change.run.phase
    assert phase == step_pb2.RUN_PHASE_SUCCEEDED, f"{accepted.run}: {client.get_run(accepted.run)}"
    return accepted


def fill_cache(client: Client, spec: dispatcher_pb2.RunSpec, steps: int) -> None:
    """Run until every step is a hit: the cache records entries a moment after the run finishes."""
    run_to_end(client, spec)
    deadline = time.monotonic() + WAIT_SECONDS
    while sum(s.verdict == step_pb2.VERDICT_HIT for s in client.plan(spec).steps) < steps:
        assert time.monotonic() < deadline, "the cache did not record the steps"
        time.sleep(0.1)


def measure(
    rounds: int, calls: Mapping[str, Callable[[], object]], pause: float = 0
) -> dict[str, list[float]]:
    """Seconds of each call in each round, alternating (A B A B), so that other load affects all calls alike.

    `pause` (seconds) before each call lets the servers process the events of the call before.
    """
    durations: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            time.sleep(pause)
            began = time.perf_counter()
            call()
            durations[name].append(time.perf_counter() - began)
    return durations


@dataclass
class Table:
    """Lines with median, minimum and maximum in milliseconds, number of samples, and ratios to floors."""

    title: str
    lines: list[str] = field(default_factory=list)

    def add(
        self, what: str, seconds: Sequence[float], floors: Mapping[str, float] | None = None, limit: float = 0
    ) -> float:
        """Add a line with the median's ratio to each floor (seconds) and to the limit (seconds). Returns the median."""
        median = statistics.median(seconds)
        line = (
            f"{what:34} {median * 1e3:9.2f} ms  ({min(seconds) * 1e3:.2f} to {max(seconds) * 1e3:.2f},"
            f" n={len(seconds)})"
        )
        for name, floor in (floors or {}).items():
            line += f"  {median / floor:.1f} x {name}"
        if limit:
            line += f"  limit {limit * 1e3:g} ms: {'met' if median < limit else 'MISSED'}"
        self.lines.append(line)
        return median

    def show(self) -> None:
        print(f"\n{self.title}; {machine()}")
        for line in self.lines:
            print(f"  {line}", flush=True)


def machine() -> str:
    """Load averages, and the time of a fixed amount of work on one core, to compare machines and moments."""
    spins = []
    for _ in range(5):
        began = time.perf_counter()
        sum(range(1_000_000))
        spins.append(time.perf_counter() - began)
    loads = " ".join(f"{load:.1f}" for load in os.getloadavg())
    return f"load {loads} on {os.cpu_count()} cores, fixed work {statistics.median(spins) * 1e3:.1f} ms"
