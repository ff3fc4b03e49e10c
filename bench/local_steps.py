"""What a step of the local Argo's executor costs over a bare `subprocess.run` of the same command.

    .venv/bin/python bench/local_steps.py [--steps 200] [--home DIR]

Prints the floor, one step after another, and a fan-out, each in milliseconds a step, with and without mount
namespaces, and the processor time that the executor itself took. No store is needed: the steps have no artifacts.
"""

import argparse
import asyncio
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from periplus_local.argo.pods.job import Job
from periplus_local.argo.pods.pods import Pods
from periplus_local.argo.pods.store import S3Store

COMMAND = ["/bin/sh", "-c", "true"]
NOWHERE = S3Store("127.0.0.1:9", "none", "none", "none")


def job(name: str) -> Job:
    return Job(name, "bench", f"bench-{name}", {"container": {"command": COMMAND}}, f"bench/{name}")


def floor(steps: int) -> float:
    began = time.perf_counter()
    for _ in range(steps):
        subprocess.run(COMMAND, check=True)
    return (time.perf_counter() - began) / steps


async def chain(pods: Pods, steps: int) -> float:
    began = time.perf_counter()
    for number in range(steps):
        done = await pods.run(job(f"chain-{number}"))
        assert done.phase == "Succeeded", done
    return (time.perf_counter() - began) / steps


async def fan(pods: Pods, steps: int) -> float:
    began = time.perf_counter()
    ended = await asyncio.gather(*(pods.run(job(f"fan-{number}")) for number in range(steps)))
    assert all(done.phase == "Succeeded" for done in ended)
    return (time.perf_counter() - began) / steps


async def measure(home: Path, steps: int, *, namespaces: bool) -> None:
    async with Pods(home, NOWHERE, namespaces=namespaces) as pods:
        await chain(pods, 10)
        bare = floor(steps)
        used = time.process_time()
        one_by_one, at_once = await chain(pods, steps), await fan(pods, steps)
        used = (time.process_time() - used) / (2 * steps)
        ms = [f"{1000 * value:.1f} ms" for value in (bare, one_by_one, one_by_one - bare, at_once, used)]
        print(
            f"{pods.isolation:>10}: bare {ms[0]}, chain {ms[1]} (over bare {ms[2]}), "
            f"fan-out on {os.cpu_count()} cores {ms[3]}, server's processor time {ms[4]}"
        )


async def main() -> None:
    parser = argparse.ArgumentParser(description=sys.modules[__name__].__doc__)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--home", type=Path, default=None, help="a folder on the disk to measure on")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.home) as folder:
        await measure(Path(folder) / "namespaces", given.steps, namespaces=True)
        await measure(Path(folder) / "rewritten", given.steps, namespaces=False)
    print(f"peak memory of the server: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MB")


if __name__ == "__main__":
    asyncio.run(main())
