"""Whatever of ours is away while a run is on its way, the run finishes; a gate that nobody answers is the longest delay."""

import asyncio
import os
import signal
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
from cluster import Argo, connected, prepare_cluster
from link import Handler, Link, link
from stack import WAIT_SECONDS, Stack, up

from periplus.types.v1 import step_pb2
from periplus_local.stack.home import Home

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

IS_REAL = "ARGO_SERVER" in os.environ
GATE_SECONDS = 10 if IS_REAL else 4
CUTS = 50 if IS_REAL else 5
AWAY_SECONDS = 60 if IS_REAL else 6
STEPS = 4

MANIFEST = """
apiVersion: argoproj.io/v1alpha1
kind: Workflow
metadata: {generateName: open-, labels: {periplus.dev/project: default}}
spec:
  entrypoint: main
  templates:
  - name: main
    dag:
      tasks:
      - {name: s0, template: first}
TASKS
    outputs:
      parameters: [{name: out, valueFrom: {parameter: "{{tasks.sSTEPS.outputs.parameters.out}}"}}]
  - name: first
    script:
      image: IMAGE
      command: [python3]
      source: "import time; time.sleep(SLEEP); open('/tmp/out', 'w').write('0')  # FIRST"
    outputs: {parameters: [{name: out, valueFrom: {path: /tmp/out}}]}
  - name: next
    inputs: {parameters: [{name: x}]}
    script:
      image: IMAGE
      command: [python3]
      source: "open('/tmp/out', 'w').write(str(int('{{inputs.parameters.x}}') + 1))  # NEXT"
    outputs: {parameters: [{name: out, valueFrom: {path: /tmp/out}}]}
""".replace(
    "TASKS",
    "\n".join(
        f"      - {{name: s{n}, template: next, depends: s{n - 1}, arguments: "
        f'{{parameters: [{{name: x, value: "{{{{tasks.s{n - 1}.outputs.parameters.out}}}}"}}]}}}}'
        for n in range(1, STEPS + 1)
    ),
).replace("STEPS", str(STEPS))


@pytest.fixture(scope="module")
def linked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stack, Argo, Link]]:
    """A stack whose dispatcher reaches its Argo through a link."""
    home = tmp_path_factory.mktemp("open") / "home"
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("DISPATCHER_GATE_SECONDS", str(GATE_SECONDS))
        if not IS_REAL:
            with (
                up(home) as stack,
                _linked_socket(stack) as (between, itself),
                connected(stack, itself) as argo,
            ):
                stack.kill("dispatcher")  # its connections bypass the link
                yield stack, argo, between
            return
        prepare_cluster(environment)
        with _linked_server() as (between, address), connected(None) as argo:
            environment.setenv("ARGO_SERVER", address)
            with up(home, "--cluster") as stack:
                yield stack, argo, between


@contextmanager
def _linked_server() -> Iterator[tuple[Link, str]]:
    """A link to the server that ARGO_SERVER names, and its address."""
    server = urlsplit(os.environ["ARGO_SERVER"])
    assert server.scheme == "http", "these tests cut connections, and need an ARGO_SERVER without TLS"
    started: list[asyncio.Server] = []

    async def listen(handler: Handler) -> asyncio.Server:
        started.append(await asyncio.start_server(handler, "127.0.0.1", 0))
        return started[0]

    with link(lambda: asyncio.open_connection(server.hostname, server.port), listen) as found:
        host, port = started[0].sockets[0].getsockname()
        yield found, f"http://{host}:{port}"


@contextmanager
def _linked_socket(stack: Stack) -> Iterator[tuple[Link, Path]]:
    """A link in place of the local Argo's socket, and where that socket is now."""
    socket = Home(stack.home).run / "argo.sock"
    itself = socket.rename(socket.with_name("argo-itself.sock"))

    async def listen(handler: Handler) -> asyncio.Server:
        return await asyncio.start_unix_server(handler, socket)

    with link(lambda: asyncio.open_unix_connection(itself), listen) as found:
        yield found, itself


def manifest(argo: Argo, *, first: str = "", next_step: str = "", seconds: float = 0) -> str:
    """The chain. Comments decide what is cached; without them nothing is."""
    found = MANIFEST.replace("IMAGE", argo.image).replace("SLEEP", str(seconds))
    return found.replace("FIRST", first or uuid.uuid4().hex).replace("NEXT", next_step or uuid.uuid4().hex)


@pytest.fixture(scope="module")
def cached(linked: tuple[Stack, Argo, Link]) -> str:
    """The comment of a chain whose steps behind the first are cached, as far as they are asked about."""
    stack, argo, _ = linked
    comment = uuid.uuid4().hex
    run = stack.finish(manifest(argo, next_step=comment))
    assert run.phase == step_pb2.RUN_PHASE_SUCCEEDED, run.message
    return comment


@contextmanager
def stopped(stack: Stack, process: str) -> Iterator[None]:
    """A process that does not answer, with its children."""
    parent = psutil.Process(stack.pid(process))
    processes = [parent, *parent.children(recursive=True)]
    for each in processes:
        each.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for each in reversed(processes):
            with suppress(psutil.NoSuchProcess):
                each.send_signal(signal.SIGCONT)


def wait_for_argo(argo: Argo, run: str) -> None:
    """Until Argo has finished a Workflow, whatever the services know of it."""
    deadline = time.monotonic() + GATE_SECONDS + WAIT_SECONDS
    while (argo.workflow(run) or {}).get("status", {}).get("phase") != "Succeeded":
        assert time.monotonic() < deadline, argo.nodes(run)
        time.sleep(0.2)


def wait_for_first(argo: Argo, run: str) -> None:
    """Until the first step of a run is on its way, so that the gate behind it opens later."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not argo.pods(run):
        assert time.monotonic() < deadline, argo.nodes(run)
        time.sleep(0.05)


def assert_whole(stack: Stack, run: str) -> None:
    found = stack.wait_for_run(run)
    assert found.phase == step_pb2.RUN_PHASE_SUCCEEDED, found.message
    assert found.outputs.parameters[0].value == str(STEPS)
    assert {s.path for s in found.steps} == {f"s{n}" for n in range(STEPS + 1)}
    assert {s.phase for s in found.steps} <= {step_pb2.STEP_PHASE_SUCCEEDED, step_pb2.STEP_PHASE_CACHED}


@pytest.mark.parametrize("process", ["cache", "snapshotter", "lineage", "nats", "postgres", "dispatcher"])
def test_a_run_whose_gate_opens_while_a_process_does_not_answer_finishes(
    linked: tuple[Stack, Argo, Link], cached: str, process: str
) -> None:
    stack, argo, _ = linked
    run = stack.submit(manifest(argo, next_step=cached, seconds=1)).run
    wait_for_first(argo, run)
    with stopped(stack, process):
        wait_for_argo(argo, run)
    assert_whole(stack, run)


def test_a_run_finishes_though_the_watch_is_cut_again_and_again(linked: tuple[Stack, Argo, Link]) -> None:
    stack, argo, between = linked
    run = stack.submit(manifest(argo, seconds=CUTS / 2)).run
    for _ in range(CUTS):
        deadline = time.monotonic() + WAIT_SECONDS
        while not between.connections:
            assert time.monotonic() < deadline, "the dispatcher does not connect again"
            time.sleep(0.01)
        between.cut()
    assert_whole(stack, run)


def test_runs_finish_though_argos_server_is_away(linked: tuple[Stack, Argo, Link], cached: str) -> None:
    stack, argo, between = linked
    run = stack.submit(manifest(argo, next_step=cached, seconds=1)).run
    wait_for_first(argo, run)
    with between.away():
        until = time.monotonic() + AWAY_SECONDS
        accepted = stack.submit(manifest(argo, next_step=cached))
        assert accepted.phase == step_pb2.RUN_PHASE_PENDING
        wait_for_argo(argo, run)
        time.sleep(max(0.0, until - time.monotonic()))
        assert argo.workflow(accepted.run) is None
    assert_whole(stack, run)
    assert_whole(stack, accepted.run)
