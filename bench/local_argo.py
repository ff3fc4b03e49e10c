"""What the local Argo costs: time of ours per step, how flat it stays, its memory, and its events.

    python bench/local_argo.py [steps] [large] [many]

A chain of `steps` (200) and a fan-out of 2.5 times as many against bare `subprocess.run` of the same command in the
same run; CPU work, with the share of the cores that were busy; a chain and a fan-out of `large` (2000), their first
and their last quarter side by side; `many` (200) workflows at once. Five clients read all events all the while.
Processor time is that of the server, of its fork server and of everything below it, the command itself left out: unlike
the time on the clock it hardly depends on what else the machine does.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from harness import machine

from periplus_local.argo.testing import ArgoProcess, Client

COMMAND = ["/bin/true"]
SPIN = "import time; end = time.process_time() + 0.3\nwhile time.process_time() < end: pass"
GOAL = 0.015
MIB = 1 << 20
WATCHERS = 5
Tasks = list[dict[str, Any]]


def workflow(tasks: Tasks, command: list[str]) -> dict[str, Any]:
    leaf = {"name": "leaf", "container": {"image": "none", "command": command}}
    main = {"name": "main", "dag": {"tasks": tasks}}
    return {"metadata": {"generateName": "b-"}, "spec": {"entrypoint": "main", "templates": [main, leaf]}}


def chain(steps: int) -> Tasks:
    tasks = [{"name": "t0", "template": "leaf"}]
    return tasks + [{"name": f"t{at}", "template": "leaf", "depends": f"t{at - 1}"} for at in range(1, steps)]


def fan(steps: int) -> Tasks:
    return [{"name": "f", "template": "leaf", "withItems": list(range(steps))}]


def floor(steps: int) -> tuple[float, float]:
    """Seconds on the clock and of a processor for one bare process, the work of starting it included."""

    def used() -> float:
        both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        return sum(usage.ru_utime + usage.ru_stime for usage in both)

    began, before = time.perf_counter(), used()
    for _ in range(steps):
        subprocess.run(COMMAND, check=True)
    return (time.perf_counter() - began) / steps, (used() - before) / steps


@dataclass
class Reader:
    """One who reads all events: how many bytes of them, and how many."""

    octets: int = 0
    events: int = 0


@dataclass
class Bench:
    """A local Argo that is up, and its clients."""

    server: ArgoProcess
    client: Client
    readers: list[Reader]

    def processes(self) -> list[psutil.Process]:
        """The server and all below it."""
        top = psutil.Process(self.server.pid)
        return [top, *top.children(recursive=True)]

    def processor(self) -> float:
        """Seconds that the server has worked, with its fork server and all steps that have ended."""
        times = [each.cpu_times() for each in self.processes()]
        ended = times[1:] and times[1].children_user + times[1].children_system
        return sum(each.user + each.system for each in times[:2]) + float(ended or 0)

    def memory(self) -> str:
        server, *others = [each.memory_info().rss / MIB for each in self.processes()]
        return f"RSS {server:.0f} MiB and {sum(others):.0f} of its fork server"

    def run(self, body: Mapping[str, Any]) -> tuple[float, float]:
        """Seconds on the clock and of processors until the workflow has succeeded."""
        began, before = time.perf_counter(), self.processor()
        name = self.client.create(dict(body))
        with self.client.open("GET", f"workflow-events/argo?listOptions.fieldSelector=metadata.name={name}",
                              seconds=3600) as stream:  # fmt: skip
            for line in stream:
                if b'/completed":"true"' in line:
                    assert b'"phase":"Succeeded"' in line, line[:1000]
                    break
        return time.perf_counter() - began, self.processor() - before

    def ends(self) -> list[float]:
        """When each step ended, by the records that they leave."""
        return sorted(path.stat().st_mtime for path in (self.server.home / "pods").glob("*/exit"))


@contextmanager
def bench() -> Iterator[Bench]:
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="local-argo-") as home:
        server = ArgoProcess(Path(home))
        made = Bench(server, server.start(), [Reader() for _ in range(WATCHERS)])
        for reader in made.readers:
            threading.Thread(target=read, args=(made.client, reader), daemon=True).start()
        try:
            yield made
        finally:
            server.stop()


def read(client: Client, reader: Reader) -> None:
    """Read events as fast as they come, and do nothing with them."""
    with client.open("GET", "workflow-events/argo", seconds=3600) as stream:
        while piece := stream.read1(1 << 20):
            reader.octets += len(piece)
            reader.events += piece.count(b"data: ")


def steps_of(bench: Bench, what: str, tasks: Tasks, count: int, bare: tuple[float, float]) -> None:
    took, used = bench.run(workflow(tasks, COMMAND))
    clock, ours = took / count - bare[0], used / count - bare[1]
    print(
        f"  {what} of {count}: {clock * 1e3:5.1f} ms a step over the bare {bare[0] * 1e3:.1f} ms,"
        f" {ours * 1e3:.1f} ms of a processor over its {bare[1] * 1e3:.1f} ms"
        f"  goal {GOAL * 1e3:g} ms: {'met' if clock < GOAL else 'MISSED'}",
        flush=True,
    )


def busy(bench: Bench) -> None:
    def worked() -> float:
        times = psutil.cpu_times()
        return float(sum(times) - times.idle - times.iowait - times.guest - times.guest_nice)

    began, before = time.perf_counter(), worked()
    bench.run(workflow(fan(40), [sys.executable, "-c", SPIN]))
    share = (worked() - before) / ((time.perf_counter() - began) * (os.cpu_count() or 1))
    print(f"  CPU work: {share:.0%} of all cores busy  goal 90 %: {'met' if share >= 0.9 else 'MISSED'}")


def large(what: str, tasks: Tasks, count: int) -> None:
    with bench() as made:
        idle, before = made.memory(), sum(path.stat().st_size for path in made.server.home.glob("state*"))
        _, used = made.run(workflow(tasks, COMMAND))
        ends, quarter = made.ends(), count // 4
        first, last = (ends[at + quarter - 1] - ends[at] for at in (0, count - quarter))
        state = sum(path.stat().st_size for path in made.server.home.glob("state*")) - before
        events = made.readers[0]
        print(
            f"  {what} of {count}: {first / quarter * 1e3:.1f} ms a step in the first quarter,"
            f" {last / quarter * 1e3:.1f} in the last, {used / count * 1e3:.1f} ms of processors in all;"
            f" {state / count / 1024:.1f} KiB of state a step;"
            f" {events.events} events of {events.octets / MIB:.1f} MiB in all to each of {WATCHERS} clients\n"
            f"    before: {idle}; after: {made.memory()}",
            flush=True,
        )


def at_once(many: int) -> None:
    with bench() as made:
        began, before = time.perf_counter(), made.processor()
        body = workflow(chain(5), COMMAND)
        with made.client.open("GET", "workflow-events/argo", seconds=3600) as stream:
            names = {made.client.create(body) for _ in range(many)}
            while names:
                line = stream.readline()
                if b'/completed":"true"' in line:
                    ended = json.loads(line.removeprefix(b"data: "))["result"]["object"]
                    assert ended["status"]["phase"] == "Succeeded", ended
                    names.discard(ended["metadata"]["name"])
        took, used = time.perf_counter() - began, made.processor() - before
        print(
            f"  {many} workflows of 5 steps at once: {took / many / 5 * 1e3:.1f} ms a step,"
            f" {used / many / 5 * 1e3:.1f} ms of processors; {made.memory()}"
        )


def main(steps: int, size: int, many: int) -> None:
    print(f"the local Argo; {machine()}")
    with bench() as made:
        print(f"  idle: {made.memory()}")
        floor(20)
        bare = floor(steps)
        steps_of(made, "chain", chain(steps), steps, bare)
        steps_of(made, "fan-out", fan(steps * 5 // 2), steps * 5 // 2, bare)
        busy(made)
    large("chain", chain(size), size)
    large("fan-out", fan(size), size)
    at_once(many)
    print(f"  at the end: {machine()}")


if __name__ == "__main__":
    given = [int(word) for word in sys.argv[1:]]
    main(*(given + [200, 2000, 200][len(given) :]))
