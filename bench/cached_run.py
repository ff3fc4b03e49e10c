"""The time of a run in which every step is a hit: by gRPC, and as a whole `periplus run` process.

    python bench/cached_run.py [rounds [chain fan-out]]

Starts its own stack. A chain of 20 and 1 -> 100 -> 1 unless others are given, small integers as parameters, as YAML and as functions.
By gRPC: SubmitRun until its answer says that the run has succeeded, with its record and its events committed. The
floors: an empty call of the same server by the same client, one INSERT with its commit in the same Postgres, and
`python -c pass` for the whole processes.
"""

import asyncio
import json
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg
import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_health.v1.health_pb2_grpc import HealthStub
from harness import PERIPLUS, Stack, Table, fill_cache, measure, run_spec, run_to_end, up

from periplus.dispatcher.v1 import dispatcher_pb2
from periplus.sdk.client import Client
from periplus.sdk.client.addresses import grpc_target
from periplus.types.v1 import step_pb2
from periplus_local.stack.embedded import embedded
from periplus_local.stack.home import Home

CHAIN, FAN_OUT = map(int, sys.argv[2:4] or (20, 100))
PAUSE_SECONDS = 0.2

PIPELINE = '''"""Steps in a chain."""

from periplus.sdk import pipeline, step


@step
def one_more(x: int) -> int:
    return x + 1


@pipeline
def chain(x: int = 0) -> int:
    for _ in range({steps}):
        x = one_more(x)
    return x
'''


def script(name: str, source: str, parameter: str = "") -> dict[str, object]:
    """A template that prints its output `y`; its input parameter is `parameter`."""
    body = {"image": "alpine", "command": ["sh"], "source": f"{source} > /tmp/y"}
    inputs = {"inputs": {"parameters": [{"name": parameter}]}} if parameter else {}
    outputs = {"parameters": [{"name": "y", "valueFrom": {"path": "/tmp/y"}}]}
    return {"name": name, **inputs, "outputs": outputs, "script": body}


def workflow(name: str, tasks: list[dict[str, object]], *scripts: dict[str, object]) -> dict[str, object]:
    templates = [{"name": "main", "dag": {"tasks": tasks}}, *scripts]
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Workflow",
        "metadata": {"generateName": f"{name}-"},
        "spec": {"entrypoint": "main", "templates": templates},
    }


def call(name: str, template: str, x: str = "", *depends_on: str, **more: object) -> dict[str, object]:
    arguments = {"arguments": {"parameters": [{"name": "x", "value": x}]}} if x else {}
    return {
        "name": name, "template": template, **arguments, **more,
        **({"depends": " && ".join(depends_on)} if depends_on else {}),
    }  # fmt: skip


def chain() -> dict[str, object]:
    tasks = [call("s0", "more", "0")]
    tasks += [
        call(f"s{i}", "more", f"{{{{tasks.s{i - 1}.outputs.parameters.y}}}}", f"s{i - 1}")
        for i in range(1, CHAIN)
    ]
    return workflow("chain", tasks, script("more", "echo $(({{inputs.parameters.x}} + 1))", "x"))


def fan_out() -> dict[str, object]:
    items = json.dumps(list(range(FAN_OUT)), separators=(",", ":"))
    tasks = [
        call("list", "numbers"),
        call("work", "more", "{{item}}", "list", withParam="{{tasks.list.outputs.parameters.y}}"),
        call("join", "count", "{{tasks.work.outputs.parameters.y}}", "work"),
    ]
    return workflow(
        "fan",
        tasks,
        script("numbers", f"echo '{items}'"),
        script("more", "echo $(({{inputs.parameters.x}} + 1))", "x"),
        script("count", "echo '{{inputs.parameters.x}}' | wc -c", "x"),
    )


@contextmanager
def one_insert(stack: Stack) -> Iterator[object]:
    """A call that puts one row of some 2 kB into Postgres and commits it."""
    loop = asyncio.new_event_loop()

    async def opened() -> asyncpg.Connection:
        connection = await asyncpg.connect(embedded(Home(stack.home)).postgres.dsn())
        await connection.execute("CREATE TABLE bench_floor (id bigserial PRIMARY KEY, body text)")
        return connection

    connection = loop.run_until_complete(opened())
    body = "x" * 2000
    try:
        yield lambda: loop.run_until_complete(
            connection.execute("INSERT INTO bench_floor (body) VALUES ($1)", body)
        )
    finally:
        loop.run_until_complete(connection.close())
        loop.close()


def submit_cached(client: Client, spec: dispatcher_pb2.RunSpec, steps: int) -> None:
    """Submit a run; every step must be a hit and the run finished."""
    answer = client.submit(spec, str(uuid.uuid4()))
    hits = sum(step.verdict == step_pb2.VERDICT_HIT for step in answer.plan.steps)
    assert answer.phase == step_pb2.RUN_PHASE_SUCCEEDED, answer
    assert hits == len(answer.plan.steps) == steps, answer


def by_grpc(stack: Stack, rounds: int) -> None:
    connection = stack.connection
    channel = grpc.insecure_channel(grpc_target(connection.dispatcher))
    health = HealthStub(channel)
    token = (("authorization", f"Bearer {connection.token}"),)
    plans = {
        f"chain of {CHAIN}": (run_spec(chain()), CHAIN),
        f"1 -> {FAN_OUT} -> 1": (run_spec(fan_out()), FAN_OUT + 2),
    }
    with stack.client() as client, one_insert(stack) as insert:
        for spec, steps in plans.values():
            fill_cache(client, spec, steps)
        calls = {
            "empty call": lambda: health.Check(HealthCheckRequest(), metadata=token),
            "INSERT": insert,
            **{name: lambda p=plan: submit_cached(client, *p) for name, plan in plans.items()},
        }
        measure(3, calls)
        durations = measure(rounds, calls, PAUSE_SECONDS)
        used = {name: cpu(stack, lambda p=plan: submit_cached(client, *p)) for name, plan in plans.items()}
        until_lineage = measure(
            max(min(rounds, 5), rounds // 5),
            {name: lambda s=spec: run_to_end(client, s) for name, (spec, _) in plans.items()},
            PAUSE_SECONDS,
        )
    channel.close()
    table = Table(f"all cached, by gRPC; every one of {rounds} x ({CHAIN} + {FAN_OUT + 2}) steps was a hit")
    empty = table.add("floor: an empty call", durations["empty call"])
    row = table.add("floor: one INSERT and its commit", durations["INSERT"])
    for name, limit in zip(plans, (0.025, 0.080), strict=True):
        table.add(name, durations[name], {"(call + INSERT)": empty + row}, limit)
    for name, parts in used.items():
        table.lines.append(f"{name}, CPU ms a run, events included: {parts}")
    for name, seconds in until_lineage.items():
        table.add(f"{name}, until lineage reports its end", seconds, {"(call + INSERT)": empty + row})
    table.show()


def cpu(stack: Stack, call: Callable[[], object], times: int = 20) -> str:
    """CPU milliseconds per call by process of the stack, including the processing of its events."""

    def spent() -> dict[str, float]:
        found: dict[str, float] = {}
        for part, process in stack.processes():
            found[part] = found.get(part, 0) + sum(process.cpu_times()[:2])
        return found

    before = spent()
    for _ in range(times):
        call()
    time.sleep(2)
    ms = {part: (after - before[part]) / times * 1e3 for part, after in spent().items()}
    return ", ".join(
        f"{part} {used:.1f}" for part, used in sorted(ms.items(), key=lambda e: -e[1]) if used >= 1
    )


def run(stack: Stack, file: Path) -> str:
    """`periplus run FILE`; returns its output."""
    return subprocess.run(
        [PERIPLUS, "run", file.name],
        env=stack.environment, cwd=file.parent, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip


def cached(stack: Stack, file: Path) -> None:
    """`periplus run FILE`, whose steps must all be hits."""
    said = run(stack, file)
    assert f": 0 steps ran, {CHAIN} cached" in said, said


def by_process(stack: Stack, directory: Path, rounds: int) -> None:
    yaml, functions = directory / "chain.yaml", directory / "pipeline.py"
    yaml.write_text(json.dumps(chain()))
    functions.write_text(PIPELINE.format(steps=CHAIN))
    calls = {
        "python": lambda: subprocess.run([sys.executable, "-c", "pass"], check=True),
        "yaml": lambda: cached(stack, yaml),
        "functions": lambda: cached(stack, functions),
    }
    for file in (yaml, functions):
        deadline = time.monotonic() + 60
        while f"{CHAIN} cached" not in (
            said := run(stack, file)
        ):  # the cache records a moment after a run's end
            assert time.monotonic() < deadline, said
    measure(1, calls)
    durations = measure(rounds, calls)
    table = Table(f"all cached, a whole process; every one of {rounds} x {CHAIN} x 2 steps was a hit")
    floor = table.add("floor: python -c pass", durations["python"])
    table.add("periplus run chain.yaml", durations["yaml"], {"python": floor}, 0.9)
    table.add("periplus run pipeline.py", durations["functions"], {"python": floor}, 0.9)
    table.show()


def main(rounds: int) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="periplus-bench-") as directory,
        up(Path(directory, "home")) as stack,
    ):
        by_grpc(stack, rounds)
        by_process(stack, Path(directory), max(min(rounds, 5), rounds // 5))


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 50)
