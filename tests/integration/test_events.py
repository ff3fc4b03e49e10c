"""A team's subscriber hears of runs, with rights to nothing else."""

import asyncio
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator

import nats
import pytest
from nats.errors import TimeoutError as NatsTimeoutError
from stack import ROOT, Stack

from periplus.sdk.connection import connection

HELLO = """
apiVersion: argoproj.io/v1alpha1
kind: Workflow
metadata: {generateName: hello-}
spec:
  entrypoint: main
  templates:
  - {name: main, container: {image: any, command: [echo, WORD]}}
"""


@pytest.fixture
def told(stack: Stack) -> Iterator["subprocess.Popen[str]"]:
    """The example, once it listens."""
    environment = os.environ | {"PERIPLUS_HOME": str(stack.home)}
    command = [sys.executable, "examples/events.py"]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stderr
        for line in process.stderr:
            if "started" in line:
                break
        yield process
        process.terminate()


def test_a_subscriber_hears_that_a_run_has_ended(stack: Stack, told: "subprocess.Popen[str]") -> None:
    run = stack.finish(HELLO.replace("WORD", str(uuid.uuid4())))
    assert told.stdout
    for line in told.stdout:
        if run.id in line:
            assert line == f"default {run.id} succeeded: 0 steps were cached\n"
            return
    pytest.fail("it ended without a word of the run")


async def test_a_subscriber_may_say_nothing(stack: Stack) -> None:
    refusals: asyncio.Queue[str] = asyncio.Queue()

    async def note(error: Exception) -> None:
        refusals.put_nowait(str(error).lower())

    url = connection({"PERIPLUS_HOME": str(stack.home)}).events
    client = await nats.connect(url, error_cb=note)
    try:
        with pytest.raises(NatsTimeoutError):
            await client.jetstream(timeout=1).account_info()
        await client.publish("periplus.dispatcher.v1.RunFinished.default.forged", b"")
        async with asyncio.timeout(10):
            while "runfinished.default.forged" not in await refusals.get():
                pass
    finally:
        await client.close()
