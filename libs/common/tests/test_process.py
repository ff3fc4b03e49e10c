"""A whole process: it ends at a signal, in order, and with its task's error."""

import signal
import subprocess
import sys
import textwrap

import pytest

PROGRAM = """
import asyncio, sys
from contextlib import asynccontextmanager
from periplus_common.runtime import background_task, run

@asynccontextmanager
async def part(name):
    print("open", name, flush=True)
    try:
        yield
    finally:
        print("close", name, flush=True)

async def work():
    await asyncio.sleep(0 if "fail" in sys.argv else 60)
    raise ValueError("the work failed")

@asynccontextmanager
async def app():
    async with part("pool"):
        if "slow" in sys.argv:
            print("ready", flush=True)
            await asyncio.sleep(60)
        async with part("broker"), background_task(work()), part("rpc"):
            print("ready", flush=True)
            yield

run(app())
"""


def started(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PROGRAM), *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def signalled(process: subprocess.Popen[str], signum: int) -> tuple[str, str]:
    assert process.stdout
    before = ""
    while "ready" not in before:
        read = process.stdout.readline()
        assert read, process.communicate(timeout=10)[1]
        before += read
    process.send_signal(signum)
    out, err = process.communicate(timeout=30)
    return before + out, err


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_closes_everything_in_reverse_order(signum: int):
    process = started()
    out, err = signalled(process, signum)
    assert out.split("ready\n")[1].splitlines() == ["close rpc", "close broker", "close pool"]
    assert (process.returncode, err) == (0, "")


def test_a_signal_ends_a_process_that_is_still_opening():
    process = started("slow")
    out, err = signalled(process, signal.SIGTERM)
    assert out.splitlines() == ["open pool", "ready", "close pool"]
    assert (process.returncode, err) == (0, "")


def test_a_task_that_fails_ends_the_process_with_its_error():
    process = started("fail")
    out, err = process.communicate(timeout=30)
    assert out.splitlines()[-3:] == ["close rpc", "close broker", "close pool"]
    assert process.returncode == 1
    assert "ValueError: the work failed" in err


def test_objects_of_the_start_are_left_out_of_later_garbage_collections():
    program = """
import asyncio, gc
from contextlib import asynccontextmanager
from periplus_common.runtime import background_task, run

async def work():
    await asyncio.sleep(0.1)
    print(gc.get_freeze_count() > 1000, flush=True)
    raise ValueError("enough")

@asynccontextmanager
async def app():
    async with background_task(work()):
        yield

run(app())
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=False, text=True, timeout=30
    )
    assert done.stdout == "True\n", done.stderr
