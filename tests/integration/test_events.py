"""A team's subscriber receives events of runs and may do nothing else."""

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

from periplus.sdk.client import connection
from periplus_common import tls

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
def subscriber(stack: Stack) -> Iterator["subprocess.Popen[str]"]:
    """The example subscriber, once it has started."""
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


def test_a_subscriber_receives_the_end_of_a_run(stack: Stack, subscriber: "subprocess.Popen[str]") -> None:
    run = stack.finish(HELLO.replace("WORD", str(uuid.uuid4())))
    assert subscriber.stdout
    for line in subscriber.stdout:
        if run.id in line:
            assert line == f"default {run.id} succeeded: 0 steps were cached\n"
            return
    pytest.fail("the subscriber ended without a line about the run")


async def test_a_subscriber_may_not_publish(stack: Stack) -> None:
    refusals: asyncio.Queue[str] = asyncio.Queue()

    async def record(error: Exception) -> None:
        refusals.put_nowait(str(error).lower())

    settings = connection({"PERIPLUS_HOME": str(stack.home)})
    secured = tls.nats_options(settings.events, settings.events_ca_file)
    client = await nats.connect(settings.events, error_cb=record, **secured)
    try:
        with pytest.raises(NatsTimeoutError):
            await client.jetstream(timeout=1).account_info()
        await client.publish("periplus.dispatcher.v1.RunFinished.default.forged", b"")
        async with asyncio.timeout(60):
            while "runfinished.default.forged" not in await refusals.get():
                pass
    finally:
        await client.close()
