"""The cost per step of a first run over the bare process: dispatcher and local Argo.

    python bench/first_run.py [rounds]

Starts its own stack. A chain of 20 and a fan-out of 20 container steps of `/bin/true` with arguments that are new in
every round, from SubmitRun until lineage reports the end. The floor is `subprocess.run` of the same command, as often
and in the same round: one after the other and, for the fan-out, also in as many threads as there are cores.
"""

import os
import subprocess
import sys
import tempfile
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from harness import Table, measure, run_spec, run_to_end, up

from periplus.sdk.client import Client
from periplus.types.v1 import step_pb2

STEPS = 20


def workflow(name: str, tasks: list[dict[str, object]], word: str) -> dict[str, object]:
    template = {"name": "step", "container": {"image": "alpine", "command": ["/bin/true"], "args": [word]}}
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Workflow",
        "metadata": {"generateName": f"{name}-"},
        "spec": {"entrypoint": "main", "templates": [{"name": "main", "dag": {"tasks": tasks}}, template]},
    }


def chain(word: str) -> dict[str, object]:
    tasks: list[dict[str, object]] = [{"name": "s0", "template": "step"}]
    tasks += [{"name": f"s{i}", "template": "step", "depends": f"s{i - 1}"} for i in range(1, STEPS)]
    return workflow("chain", tasks, word)


def fan_out(word: str) -> dict[str, object]:
    return workflow("fan-out", [{"name": "all", "template": "step", "withItems": list(range(STEPS))}], word)


def run_all(client: Client, manifest: dict[str, object]) -> None:
    """Run a manifest; each of its steps must have run."""
    run = client.get_run(run_to_end(client, run_spec(manifest)).run)
    steps = [step for step in run.steps if step.phase == step_pb2.STEP_PHASE_SUCCEEDED]
    assert len(steps) >= STEPS, run


def bare(threads: int) -> None:
    def one(_: int) -> None:
        subprocess.run(["/bin/true", "word"], check=True)

    if threads == 1:
        for i in range(STEPS):
            one(i)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(one, range(STEPS)))


def word() -> str:
    return str(uuid.uuid4())


def main(rounds: int) -> None:
    cores = os.cpu_count() or 1
    with (
        tempfile.TemporaryDirectory(prefix="periplus-bench-") as directory,
        up(Path(directory, "home")) as stack,
        stack.client() as client,
    ):
        calls = {
            "bare": lambda: bare(1),
            "chain": lambda: run_all(client, chain(word())),
            "bare, parallel": lambda: bare(cores),
            "fan": lambda: run_all(client, fan_out(word())),
        }
        measure(1, calls)
        durations = measure(rounds, calls)
    table = Table(f"first runs of {STEPS} steps of /bin/true, each of which ran; milliseconds per step")
    each = {name: [second / STEPS for second in seconds] for name, seconds in durations.items()}
    floor = table.add("floor: bare, one after the other", each["bare"])
    parallel = table.add(f"floor: bare, {cores} at once", each["bare, parallel"])
    table.add("a chain, in all", each["chain"], {"floor": floor})
    table.add("a chain, over the floor", over(each["chain"], each["bare"]), limit=0.040)
    table.add("a fan-out, in all", each["fan"], {"floor": floor, "parallel floor": parallel})
    table.add("a fan-out, over the floor", over(each["fan"], each["bare"]), limit=0.040)
    table.add("a fan-out, over the parallel floor", over(each["fan"], each["bare, parallel"]), limit=0.040)
    table.show()


def over(ours: list[float], floors: list[float]) -> list[float]:
    """The difference to the floor of the same round."""
    return [own - floor for own, floor in zip(ours, floors, strict=True)]


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 10)
