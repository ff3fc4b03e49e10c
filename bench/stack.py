"""The time of `periplus up` until everything is ready, and the memory of the running stack.

    python bench/stack.py [starts]

Each start has a new home, followed by a second start on the same home. The floor: five interpreters that import at
the same time what the four services and the local Argo import. Memory: the sum of the resident sets of all processes of
the stack, which the limit bounds, and of their proportional sets (shared pages divided among the processes that share
them), 20 s after a start and 30 s after a run. Both sums include `periplus up` itself.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from first_run import chain
from harness import Stack, Table, run_spec, run_to_end, up

MIB = 1 << 20
LIMIT_MIB = 800
PROGRAMS = (
    "periplus_cache", "periplus_dispatcher", "periplus_lineage", "periplus_snapshotter", "periplus_local.argo",
)  # fmt: skip


def memory(stack: Stack) -> tuple[dict[str, float], dict[str, float]]:
    """MiB by program: resident set and proportional set."""
    resident: dict[str, float] = {}
    proportional: dict[str, float] = {}
    for name, process in stack.processes():
        try:
            rss = process.memory_info().rss / MIB
            rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
        except PermissionError:
            raise SystemExit(
                "run this as root: the stack's processes can not be inspected by others"
            ) from None
        except (psutil.NoSuchProcess, ProcessLookupError, FileNotFoundError):
            continue  # ended meanwhile
        pss = next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")) / 1024
        resident[name] = resident.get(name, 0) + rss
        proportional[name] = proportional.get(name, 0) + pss
    return resident, proportional


def print_memory(stack: Stack, when: str) -> None:
    resident, proportional = memory(stack)
    total = sum(resident.values())
    print(
        f"\n{when}: RSS {total:.0f} MiB, PSS {sum(proportional.values()):.0f} MiB"
        f"  limit {LIMIT_MIB} MiB RSS: {'met' if total < LIMIT_MIB else 'MISSED'}"
    )
    for name, size in sorted(resident.items(), key=lambda each: -each[1]):
        print(f"  {name:24} RSS {size:6.1f}  PSS {proportional[name]:6.1f} MiB")
    sys.stdout.flush()


def main(starts: int) -> None:
    durations: dict[str, list[float]] = {"floor": [], "fresh": [], "second": []}
    with tempfile.TemporaryDirectory(prefix="periplus-bench-") as directory:
        for start in range(starts):
            home = Path(directory, f"home{start}")
            durations["floor"].append(imports())
            for which in ("fresh", "second"):
                with up(home) as stack:
                    durations[which].append(stack.startup_seconds)
                    if start == starts - 1 and which == "second":
                        measure_memory(stack)
    table = Table("periplus up, to all ready")
    floor = table.add("floor: the imports", durations["floor"])
    table.add("a fresh home", durations["fresh"], {"floor": floor}, 8)
    table.add("a second start on it", durations["second"], {"floor": floor}, 8)
    table.show()


def imports() -> float:
    """Seconds that five interpreters take to import the programs' modules at the same time."""
    began = time.perf_counter()
    running = [subprocess.Popen([sys.executable, "-c", f"import {module}.app"]) for module in PROGRAMS]
    assert [process.wait() for process in running] == [0] * len(PROGRAMS)
    return time.perf_counter() - began


def measure_memory(stack: Stack) -> None:
    """Print the memory of the idle stack, then after a run."""
    time.sleep(20)
    print_memory(stack, "20 s after the start")
    with stack.client() as client:
        run_to_end(client, run_spec(chain("memory")))
    time.sleep(30)
    print_memory(stack, "30 s after a run of 20 steps")


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 3)
