"""Steps that misbehave: each ends as a pod would, its log is right, and the next step runs."""

import asyncio
import sys
from collections.abc import Callable

import pytest

from periplus_local.argo.executor.job import Job
from periplus_local.argo.executor.process_executor import ProcessExecutor

Sh = Callable[..., Job]
LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs a subreaper")
EATS_DESCRIPTORS = """
import os
try:
    while True: os.dup(1)
except OSError: print("no more", flush=True)
"""
MANY = """
import os, signal
pids = []
for at in range(300):
    pids.append(os.fork())
    if not pids[-1]:
        if at % 3 == 0: os.setsid()
        if at % 7 == 0 and os.fork() == 0: os.setsid()
        signal.pause()
print(*sorted(pids), flush=True)
"""


async def ended(executor: ProcessExecutor, job: Job) -> tuple[int | None, bytes]:
    """Run a step: its exit code and its whole log; asserts that another step runs after it."""
    done = await asyncio.wait_for(executor.run(job), 60)
    after = Job("after", "wf", "after", {"container": {"command": ["true"]}}, "wf/after")
    assert (await asyncio.wait_for(executor.run(after), 60)).exit_code == 0
    return done.exit_code, executor.log_path(job.id).read_bytes()


@pytest.mark.parametrize(
    ("line", "code", "log"),
    [
        ("kill -TERM $$$$", 143, b""),
        ("kill -KILL $$$$", 137, b""),
        ("trap '' TERM; kill -TERM 0; echo still; kill -KILL 0", 137, b"still\n"),
        ("mkdir /tmp/d; cd /tmp/d; rm -r /tmp/d; echo gone; exit 4", 4, b"gone\n"),
        ("exec echo replaced", 0, b"replaced\n"),
        ("(sleep 0.2; kill -CONT $$$$) & kill -STOP $$$$; echo woken", 0, b"woken\n"),
        ("printf 'a\\377b\\000c\\r\\n'", 0, b"a\xffb\x00c\r\n"),
        ("mkfifo /tmp/f; ln -s / /tmp/r; chmod 000 /tmp; exit 5", 5, b""),
    ],
)  # fmt: skip
async def test_a_step_ends_as_a_pod_would(
    executor: ProcessExecutor, sh: Sh, line: str, code: int, log: bytes
) -> None:
    assert await ended(executor, sh(line)) == (code, log)


@pytest.mark.parametrize(("program", "log"), [(EATS_DESCRIPTORS, b"no more\n")])
async def test_a_step_may_use_up_its_file_descriptors(
    executor: ProcessExecutor, sh: Sh, program: str, log: bytes
) -> None:
    job = sh("", container={"command": [sys.executable, "-c"], "args": [program]})
    assert await ended(executor, job) == (0, log)


@LINUX
async def test_hundreds_of_processes_in_sessions_of_their_own_end_with_the_step(
    executor: ProcessExecutor, sh: Sh, alive: Callable[[int], bool]
) -> None:
    code, log = await ended(executor, sh("", container={"command": [sys.executable, "-c"], "args": [MANY]}))
    assert code == 0
    pids = [int(pid) for pid in log.split()]
    assert len(pids) == 300
    assert not any(map(alive, pids))


async def test_a_line_of_ten_megabytes_is_split_between_characters(executor: ProcessExecutor, sh: Sh) -> None:
    line = "printf x; head -c 10000000 /dev/zero | sed 's/\\x00/\\xc3\\xa9/g'; echo; echo last"
    job = sh(line)
    assert (await executor.run(job)).exit_code == 0
    pieces = [piece async for piece in executor.follow_log(job.id)]
    assert len(pieces) > 100
    assert "".join(pieces) == "x" + "é" * 10_000_000 + "last"
