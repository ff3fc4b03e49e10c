"""What the local Argo costs per step, against bare processes measured in the same run.

    python -m tests.conformance.overhead [--steps N]

A chain and a fan-out of `true`, the same number of `subprocess.run(["true"])` as the floor, a fan-out of
CPU work with how busy the cores were, and the memory of the server after a large workflow. One client
watches the events all the while, as the dispatcher does.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from periplus_local.argo.testing import COMPLETED, Client, Server

SPIN = "import time; end = time.process_time() + 0.3\nwhile time.process_time() < end: pass"


def floor(steps: int) -> float:
    """Seconds for one bare process."""
    began = time.perf_counter()
    for _ in range(steps):
        subprocess.run(["true"], check=True)
    return (time.perf_counter() - began) / steps


def workflow(tasks: list[dict[str, Any]], command: list[str]) -> dict[str, Any]:
    leaf = {"name": "leaf", "container": {"image": "none", "command": command}}
    main = {"name": "main", "dag": {"tasks": tasks}}
    return {"metadata": {"generateName": "o-"}, "spec": {"entrypoint": "main", "templates": [main, leaf]}}


def chain(steps: int) -> list[dict[str, Any]]:
    tasks = [{"name": "t0", "template": "leaf"}]
    return tasks + [{"name": f"t{at}", "template": "leaf", "depends": f"t{at - 1}"} for at in range(1, steps)]


def fan(steps: int) -> list[dict[str, Any]]:
    return [{"name": "f", "template": "leaf", "withItems": list(range(steps))}]


def seconds(client: Client, body: dict[str, Any]) -> float:
    """How long the workflow takes, told by its end in the event stream."""
    ended = threading.Event()

    def watch() -> None:
        with client.open("GET", f"workflow-events/{client.namespace}", seconds=600) as stream:
            for line in stream:
                if not line.startswith(b"data: "):
                    continue
                seen = json.loads(line[6:])["result"]["object"]["metadata"]
                if seen["name"] == name and (seen.get("labels") or {}).get(COMPLETED) == "true":
                    ended.set()
                    return

    began = time.perf_counter()
    name = client.create(body)
    threading.Thread(target=watch, daemon=True).start()
    ended.wait(600)
    return time.perf_counter() - began


def busy() -> float:
    """Seconds that all cores together have spent at work since the machine began."""
    fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")


def used(pid: int) -> tuple[float, int]:
    """CPU seconds and peak memory in MB of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    peak = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"), peak // 1024


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--steps", type=int, default=200, help="of the chain; the fan-out has 2.5 times as many"
    )
    steps = parser.parse_args().steps
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="overhead-") as home:
        server = Server(Path(home))
        client = server.start()
        try:
            bare = floor(steps)
            sys.stdout.write(f"floor: {bare * 1000:.1f} ms per bare process\n")
            for label, tasks in (("chain", chain(steps)), ("fan-out", fan(steps * 5 // 2))):
                before, _ = used(server.pid)
                count = steps if label == "chain" else steps * 5 // 2
                took = seconds(client, workflow(tasks, ["true"]))
                after, peak = used(server.pid)
                ours = (after - before) / count
                sys.stdout.write(
                    f"{label} of {count}: {took / count * 1000:.1f} ms per step in all, "
                    f"{(took / count - bare) * 1000:.1f} ms over the floor, "
                    f"{ours * 1000:.1f} ms CPU of the server, peak {peak} MB\n"
                )
            began, worked = time.perf_counter(), busy()
            seconds(client, workflow(fan(40), [sys.executable, "-c", SPIN]))
            share = (busy() - worked) / ((time.perf_counter() - began) * (os.cpu_count() or 1))
            sys.stdout.write(f"CPU work: {share:.0%} of all cores busy\n")
        finally:
            server.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
