"""How long `periplus up` takes until all is ready, and how much memory the stack then holds.

    python bench/stack.py [starts]

Each start on a home of its own, then a second start on the same home; the floor is what the four services and the
local Argo import, by five bare interpreters at once. Memory: the resident sets of all processes of the stack summed, as the goal
counts it, and their proportional sets (shared pages divided among those that share them), 20 s after a start and
30 s after a run. Both sums leave `periplus up` itself in.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from first_run import chain
from running import Stack, Table, finished, order, up

MIB = 1 << 20
GOAL = 800  # MiB
PROGRAMS = (
    "periplus_cache", "periplus_dispatcher", "periplus_lineage", "periplus_snapshotter", "periplus_local.argo",
)  # fmt: skip


def memory(stack: Stack) -> tuple[dict[str, float], dict[str, float]]:
    """MiB by part: resident, and proportional."""
    resident: dict[str, float] = {}
    proportional: dict[str, float] = {}
    for name, process in stack.parts():
        try:
            rss = process.memory_info().rss / MIB
            rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
        except (psutil.NoSuchProcess, ProcessLookupError, FileNotFoundError):
            continue  # ended while we looked
        pss = next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")) / 1024
        resident[name] = resident.get(name, 0) + rss
        proportional[name] = proportional.get(name, 0) + pss
    return resident, proportional


def weigh(stack: Stack, when: str) -> None:
    resident, proportional = memory(stack)
    total = sum(resident.values())
    print(
        f"\n{when}: RSS {total:.0f} MiB, PSS {sum(proportional.values()):.0f} MiB"
        f"  goal {GOAL} MiB RSS: {'met' if total < GOAL else 'MISSED'}"
    )
    for name, size in sorted(resident.items(), key=lambda each: -each[1]):
        print(f"  {name:24} RSS {size:6.1f}  PSS {proportional[name]:6.1f} MiB")
    sys.stdout.flush()


def main(starts: int) -> None:
    taken: dict[str, list[float]] = {"floor": [], "fresh": [], "second": []}
    with tempfile.TemporaryDirectory(prefix="periplus-bench-") as directory:
        for start in range(starts):
            home = Path(directory, f"home{start}")
            taken["floor"].append(imports())
            for which in ("fresh", "second"):
                with up(home) as stack:
                    taken[which].append(stack.seconds)
                    if start == starts - 1 and which == "second":
                        rest(stack)
    table = Table("periplus up, to all ready")
    floor = table.add("floor: the imports", taken["floor"])
    table.add("a fresh home", taken["fresh"], {"floor": floor}, 8)
    table.add("a second start on it", taken["second"], {"floor": floor}, 8)
    table.show()


def imports() -> float:
    """Seconds that five interpreters take to import what the parts import, at once."""
    began = time.perf_counter()
    running = [subprocess.Popen([sys.executable, "-c", f"import {module}.app"]) for module in PROGRAMS]
    assert [process.wait() for process in running] == [0] * len(PROGRAMS)
    return time.perf_counter() - began


def rest(stack: Stack) -> None:
    """Weigh the stack at rest, then after it has worked."""
    time.sleep(20)
    weigh(stack, "20 s after the start")
    with stack.client() as client:
        finished(client, order(chain("memory")))
    time.sleep(30)
    weigh(stack, "30 s after a run of 20 steps")


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 3)
