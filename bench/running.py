"""A stack of a bench's own (`periplus up` on a home in a temporary folder), and how times are taken and shown."""

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
from periplus.sdk.client import Client
from periplus.sdk.connection import Connection, connection
from periplus.types.v1 import step_pb2
from periplus_local.stack.child import bound

PERIPLUS = str(Path(sys.executable).parent / "periplus")
READY = "Ctrl-C stops everything"
PATIENCE = 180.0  # seconds


@dataclass
class Stack:
    """A stack that is up."""

    home: Path
    process: subprocess.Popen[str]
    seconds: float
    """From the start of `periplus up` to the line that says that all is ready."""

    @property
    def environment(self) -> dict[str, str]:
        """What a `periplus` of this stack is started with."""
        return os.environ | {"PERIPLUS_HOME": str(self.home), "COLUMNS": "120"}

    @property
    def connection(self) -> Connection:
        return connection({"PERIPLUS_HOME": str(self.home)})

    def client(self) -> Client:
        return Client(self.connection)

    def parts(self) -> list[tuple[str, psutil.Process]]:
        """Every process of the stack, `periplus up` included, with the name of its program."""
        top = psutil.Process(self.process.pid)
        return [(program(each), each) for each in (top, *top.children(recursive=True))]


def program(process: psutil.Process) -> str:
    """What people call a process of the stack."""
    line = process.cmdline()
    if "-m" in line:
        return line[line.index("-m") + 1]
    name = Path(line[0]).name if line else process.name()
    return "periplus up" if "python" in name else name.split(":")[0]


@contextmanager
def up(home: Path) -> Iterator[Stack]:
    """`periplus up` until the block is left; its log is shown where it does not come up."""
    log = home.with_suffix(".log")
    environment = os.environ | {"PERIPLUS_HOME": str(home)}
    began = time.perf_counter()
    with log.open("w") as output:
        process = subprocess.Popen(
            bound([PERIPLUS, "up"], signal.SIGTERM),
            env=environment,
            stdout=output,
            stderr=output,
            text=True,
            cwd=home.parent,
        )
    try:
        while READY not in log.read_text():
            if process.poll() is not None or time.perf_counter() - began > PATIENCE:
                raise SystemExit(f"the stack did not come up:\n{log.read_text()}")
            time.sleep(0.01)
        yield Stack(home, process, time.perf_counter() - began)
    finally:
        process.terminate()
        process.wait(60)


def order(
    manifest: Mapping[str, object], parameters: Mapping[str, str] | None = None
) -> dispatcher_pb2.RunSpec:
    return dispatcher_pb2.RunSpec(
        project="default", manifest=json.dumps(manifest), parameters=dict(parameters or {})
    )


def finished(client: Client, spec: dispatcher_pb2.RunSpec) -> dispatcher_pb2.SubmitRunResponse:
    """Run an order, wait for its end as lineage tells it, and see that it succeeded."""
    accepted = client.submit(spec, str(uuid.uuid4()))
    phase = accepted.phase
    for change in client.watch(accepted.run):
        phase = change.run.phase
    assert phase == step_pb2.RUN_PHASE_SUCCEEDED, f"{accepted.run}: {client.get_run(accepted.run)}"
    return accepted


def warmed(client: Client, spec: dispatcher_pb2.RunSpec, steps: int) -> None:
    """Run an order until the cache knows every step of it: it records a moment after the run's end."""
    finished(client, spec)
    deadline = time.monotonic() + PATIENCE
    while sum(s.verdict == step_pb2.VERDICT_HIT for s in client.plan(spec).steps) < steps:
        assert time.monotonic() < deadline, "the cache did not record what was run"
        time.sleep(0.1)


def in_turn(
    rounds: int, calls: Mapping[str, Callable[[], object]], pause: float = 0
) -> dict[str, list[float]]:
    """Seconds of each call in each round, A B A B, so that what else the machine does meets all alike.

    A pause (seconds) before each call lets the servers end what the last one left them: events on their way.
    """
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            time.sleep(pause)
            began = time.perf_counter()
            call()
            taken[name].append(time.perf_counter() - began)
    return taken


@dataclass
class Table:
    """Figures as lines: median, least and most in milliseconds, count, and ratios to floors."""

    title: str
    lines: list[str] = field(default_factory=list)

    def add(
        self, what: str, seconds: Sequence[float], floors: Mapping[str, float] | None = None, goal: float = 0
    ) -> float:
        """Show times, with the median's ratio to each floor (seconds) and the goal (seconds); give the median."""
        middle = statistics.median(seconds)
        line = (
            f"{what:34} {middle * 1e3:9.2f} ms  ({min(seconds) * 1e3:.2f} to {max(seconds) * 1e3:.2f},"
            f" n={len(seconds)})"
        )
        for name, floor in (floors or {}).items():
            line += f"  {middle / floor:.1f} x {name}"
        if goal:
            line += f"  goal {goal * 1e3:g} ms: {'met' if middle < goal else 'MISSED'}"
        self.lines.append(line)
        return middle

    def show(self) -> None:
        print(f"\n{self.title}; {machine()}")
        for line in self.lines:
            print(f"  {line}", flush=True)


def machine() -> str:
    """How busy the machine is: its load, and a fixed piece of work of one core, the same on a quiet machine."""
    spins = []
    for _ in range(5):
        began = time.perf_counter()
        sum(range(1_000_000))
        spins.append(time.perf_counter() - began)
    loads = " ".join(f"{load:.1f}" for load in os.getloadavg())
    return f"load {loads} on {os.cpu_count()} cores, fixed work {statistics.median(spins) * 1e3:.1f} ms"
