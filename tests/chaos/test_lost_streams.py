"""NATS loses its whole store: streams and consumers are made anew, and who had not heard what was told hears it."""

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
from stack import PATIENCE, Stack, up

from periplus.types.v1 import step_pb2
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
def stopped(*pids: int) -> Iterator[None]:
    """Processes that hang, as long as the block is open."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
        wait_for(lambda pid=pid: psutil.Process(pid).status() == psutil.STATUS_STOPPED)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def lose_store(own: Stack) -> None:
    """`kill -9` NATS, and remove all that it keeps before it is started again."""
    pid = own.pid("nats")
    with stopped(own.process.pid):
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
        shutil.rmtree(own.home / "data" / "nats" / "jetstream")


def wait_for(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def published(own: Stack) -> int:
    """How many events of the dispatcher JetStream holds."""

    async def asked() -> int:
        client = await nats.connect(embedded(Home(own.home)).nats.url)
        try:
            return (await client.jetstream().stream_info("DISPATCHER")).state.messages
        finally:
            await client.close()

    return asyncio.run(asked())


def test_what_was_told_is_heard_though_the_streams_were_lost_before(own: Stack) -> None:
    before = own.finish(PAIR, seed="before")
    told = published(own)
    with stopped(own.pid("cache"), own.pid("lineage")):
        run = own.submit(PAIR, seed="meanwhile").run  # the cache does not answer: its steps run
        wait_for(lambda: published(own) == 2 * told)
        lose_store(own)
    ended = own.ended(run)
    assert ended.phase == step_pb2.RUN_PHASE_SUCCEEDED
    assert [step.phase for step in ended.steps] == [step_pb2.STEP_PHASE_SUCCEEDED] * 2
    own.recorded(ended)
    for seed in ("before", "meanwhile"):
        assert own.submit(PAIR, seed=seed).phase == step_pb2.RUN_PHASE_SUCCEEDED
    assert own.run(before.id) == before  # though it was told again
    assert own.finish(PAIR, seed="after").phase == step_pb2.RUN_PHASE_SUCCEEDED
