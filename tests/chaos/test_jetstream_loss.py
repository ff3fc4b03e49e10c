"""NATS loses its whole store: streams and consumers are created again, and every event reaches every consumer."""

import asyncio
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import nats
import psutil
import pytest
from stack import WAIT_SECONDS, Stack, up

from periplus.types.v1 import step_pb2
from periplus_common import tls
from periplus_local.stack.embedded import embedded
from periplus_local.stack.home import Home

PAIR = """
apiVersion: argoproj.io/v1alpha1
kind: Workflow
metadata: {generateName: lost-}
spec:
  entrypoint: main
  arguments: {parameters: [{name: seed}]}
  templates:
  - name: main
    dag:
      tasks:
      - {name: a, template: link, arguments: {parameters: [{name: x, value: "{{workflow.parameters.seed}}"}]}}
      - name: b
        depends: a
        template: link
        arguments: {parameters: [{name: x, value: "{{tasks.a.outputs.parameters.y}}"}]}
  - name: link
    inputs: {parameters: [{name: x}]}
    script:
      image: python:3.11
      command: [python3]
      source: open("/tmp/y", "w").write("{{inputs.parameters.x}}+")
    outputs: {parameters: [{name: y, valueFrom: {path: /tmp/y}}]}
"""


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Stack]:
    with up(tmp_path / "home") as running:
        yield running


@contextmanager
def sigstopped(*pids: int) -> Iterator[None]:
    """Stop processes with SIGSTOP until the block is left."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
        wait_for(lambda pid=pid: psutil.Process(pid).status() == psutil.STATUS_STOPPED)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def lose_store(own: Stack) -> None:
    """`kill -9` NATS and delete its store before the supervisor restarts it."""
    pid = own.pid("nats")
    with sigstopped(own.process.pid):
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
        shutil.rmtree(own.home / "data" / "nats" / "jetstream")


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def published(own: Stack) -> int:
    """The number of events in the dispatcher's stream."""

    async def count() -> int:
        server = embedded(Home(own.home)).nats
        client = await nats.connect(server.url, **tls.nats_options(server.url, server.ca_file))
        try:
            return (await client.jetstream().stream_info("DISPATCHER")).state.messages
        finally:
            await client.close()

    return asyncio.run(count())


def test_events_that_were_not_consumed_before_the_loss_are_published_again(own: Stack) -> None:
    before = own.finish(PAIR, seed="before")
    per_run = published(own)
    with sigstopped(own.pid("cache"), own.pid("lineage")):
        run = own.submit(PAIR, seed="meanwhile").run  # the cache does not answer, so the steps run
        wait_for(lambda: published(own) == 2 * per_run)
        lose_store(own)
    finished = own.wait_for_run(run)
    assert finished.phase == step_pb2.RUN_PHASE_SUCCEEDED
    assert [step.phase for step in finished.steps] == [step_pb2.STEP_PHASE_SUCCEEDED] * 2
    own.wait_for_cache(finished)
    for seed in ("before", "meanwhile"):
        assert own.submit(PAIR, seed=seed).phase == step_pb2.RUN_PHASE_SUCCEEDED
    assert own.run(before.id) == before  # unchanged, although its events were published again
    assert own.finish(PAIR, seed="after").phase == step_pb2.RUN_PHASE_SUCCEEDED
