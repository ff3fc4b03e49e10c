"""The end of a step, by its deadline or by a stop, with all processes that it started."""

# A test may block: nothing else runs in its loop.
# ruff: noqa: ASYNC110,PTH208

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from periplus_local.argo.executor.artifact_repository import S3Config
from periplus_local.argo.executor.job import Job
from periplus_local.argo.executor.job_folder import JobFolder
from periplus_local.argo.executor.process_executor import ProcessExecutor
from periplus_local.argo.executor.settings import ExecutorSettings

Sh = Callable[..., Job]
Alive = Callable[[int], bool]
LATE = "Pod was active on the node longer than the specified deadline"
LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs a subreaper")


async def log_lines(executor: ProcessExecutor, job: Job, count: int) -> list[str]:
    """Wait for some lines of a running step's log."""
    for _ in range(3000):
        log = executor.log_path(job.id)
        found = log.read_text().splitlines() if log.exists() else []
        if len(found) >= count:
            return found
        await asyncio.sleep(0.02)
    return pytest.fail("it printed too little")


async def test_a_deadline_ends_a_step(executor: ProcessExecutor, sh: Sh) -> None:
    done = await executor.run(sh("sleep 60", deadline_seconds=0.3))
    assert (done.phase, done.message, done.exit_code) == ("Failed", LATE, 143)


async def test_a_step_that_ignores_sigterm_is_killed_after_the_grace_period(
    executor: ProcessExecutor, sh: Sh
) -> None:
    line = "trap '' TERM; while :; do sleep 0.05; done"
    done = await executor.run(sh(line, deadline_seconds=0.3))
    assert (done.phase, done.message, done.exit_code) == ("Failed", LATE, 137)


async def test_a_step_may_clean_up_within_the_grace_period(executor: ProcessExecutor, sh: Sh) -> None:
    job = sh("trap 'echo bye; exit 5' TERM; echo up; while :; do sleep 0.01; done")
    running = asyncio.create_task(executor.run(job))
    await log_lines(executor, job, 1)
    await executor.stop(job.id, timedelta(seconds=10))
    done = await running
    assert (done.phase, done.exit_code) == ("Failed", 5)
    assert "bye" in executor.log_path(job.id).read_text()


async def test_a_stop_kills_a_step_that_ignores_sigterm(executor: ProcessExecutor, sh: Sh) -> None:
    job = sh("trap '' TERM; echo up; while :; do sleep 0.05; done")
    running = asyncio.create_task(executor.run(job))
    await log_lines(executor, job, 1)
    await executor.stop(job.id, timedelta(seconds=0.2))
    assert (await running).exit_code == 137


async def test_a_job_that_is_stopped_before_it_has_a_slot_never_starts(
    tmp_path: Path, nowhere: S3Config, sh: Sh
) -> None:
    async with ProcessExecutor(tmp_path / "pods", nowhere, ExecutorSettings(slots=1)) as executor:
        first, second = sh("sleep 0.5"), sh("echo ran")
        one = asyncio.create_task(executor.run(first))
        while not executor.log_path(first.id).exists():
            await asyncio.sleep(0.01)
        two = asyncio.create_task(executor.run(second))
        await asyncio.sleep(0.1)
        await executor.stop(second.id, timedelta(seconds=1))
        assert (await two).phase == "Failed"
        assert (await one).phase == "Succeeded"
        assert not executor.log_path(second.id).exists()


async def test_stopping_an_unknown_job_ends_no_other_and_keeps_none_from_starting(
    executor: ProcessExecutor, sh: Sh
) -> None:
    job = sh("echo up; sleep 0.3; exit 6")
    running = asyncio.create_task(executor.run(job))
    await log_lines(executor, job, 1)
    await asyncio.wait_for(executor.stop("unknown", timedelta(seconds=1)), 10)
    assert not executor.log_path("unknown").parent.exists()
    assert (await running).exit_code == 6
    assert (await executor.run(sh("exit 7", id="unknown"))).exit_code == 7


async def test_children_in_the_background_end_with_the_step(
    executor: ProcessExecutor, sh: Sh, alive: Alive
) -> None:
    job = sh("sleep 60 & echo $!; exit 0")
    assert (await executor.run(job)).phase == "Succeeded"
    assert not alive(int(executor.log_path(job.id).read_text()))


@LINUX
async def test_a_daemon_in_a_session_of_its_own_ends_with_the_step(
    executor: ProcessExecutor, sh: Sh, alive: Alive
) -> None:
    line = "(setsid sh -c 'trap \"\" TERM HUP; echo $$$$; sleep 60; sleep 60' &) ; sleep 0.3"
    job = sh(line)
    done = await executor.run(job)
    assert done.phase == "Succeeded"
    assert done.finished_at - done.started_at < 30
    assert not alive(int(executor.log_path(job.id).read_text()))


async def test_a_step_that_closes_its_outputs_is_waited_for(executor: ProcessExecutor, sh: Sh) -> None:
    job = sh("echo before; exec >&- 2>&-; sleep 0.2; exit 6")
    assert (await executor.run(job)).exit_code == 6
    assert executor.log_path(job.id).read_text() == "before\n"


async def test_a_step_that_prints_too_much_has_a_log_that_says_so(
    tmp_path: Path, nowhere: S3Config, sh: Sh
) -> None:
    async with ProcessExecutor(
        tmp_path / "pods", nowhere, ExecutorSettings(slots=1, max_log_bytes=100_000)
    ) as executor:
        job = sh("head -c 50000000 /dev/zero; echo end", capture_result=True)
        done = await executor.run(job)
        assert done.phase == "Succeeded"
        assert done.result is not None
        assert done.result.endswith("end")
        log = executor.log_path(job.id).read_bytes()
        assert log[100_000:] == b"\n[the log ends here: it reached its limit of 100000 bytes]\n"


@LINUX
async def test_a_step_whose_log_cannot_be_written_ends_in_error(
    executor: ProcessExecutor, sh: Sh, tmp_path: Path
) -> None:
    job = sh("sleep 0.3; echo x; exit 0")
    folder = JobFolder(tmp_path / "pods", job.id)
    running = asyncio.create_task(executor.run(job))
    while not (folder.path / "spec").exists():
        await asyncio.sleep(0.001)
    folder.log.unlink(missing_ok=True)
    folder.log.symlink_to("/dev/full")
    done = await running
    if "No space left" not in done.message:
        pytest.skip("the step was quicker than the test")
    assert done.phase == "Error"


@LINUX
async def test_a_killed_supervisor_takes_its_step_along_and_the_step_ends_in_error(
    executor: ProcessExecutor, sh: Sh, tmp_path: Path, alive: Alive
) -> None:
    job = sh("echo $$$$; (setsid sh -c 'echo $$$$; sleep 60; echo') & sleep 60; echo")
    running = asyncio.create_task(executor.run(job))
    pids = [int(line) for line in await log_lines(executor, job, 2)]
    pid = JobFolder(tmp_path / "pods", job.id).supervisor_pid()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    done = await running
    assert done.phase == "Error"
    assert "killed by signal 9" in done.message
    for _ in range(3000):
        if not any(map(alive, pids)):
            break
        await asyncio.sleep(0.02)
    assert not any(map(alive, pids))


async def test_when_the_fork_server_dies_its_steps_go_on_and_new_ones_start(
    executor: ProcessExecutor, sh: Sh
) -> None:
    job = sh("echo up; sleep 0.5; echo done", capture_result=True)
    running = asyncio.create_task(executor.run(job))
    await log_lines(executor, job, 1)
    process = executor._fork_server._process
    assert process is not None
    process.kill()
    process.wait()
    assert (await executor.run(sh("true"))).phase == "Succeeded"
    done = await running
    assert (done.phase, done.result) == ("Succeeded", "up\ndone")


async def test_closing_the_executor_ends_its_jobs_which_are_run_again_later(
    tmp_path: Path, nowhere: S3Config, sh: Sh, alive: Alive
) -> None:
    job = sh("echo $$$$; sleep 60; echo")
    async with ProcessExecutor(tmp_path / "pods", nowhere, ExecutorSettings(slots=1)) as executor:
        running = asyncio.create_task(executor.run(job))
        pid = int((await log_lines(executor, job, 1))[0])
    assert not alive(pid)
    with pytest.raises(asyncio.CancelledError):
        await running
    async with ProcessExecutor(tmp_path / "pods", nowhere, ExecutorSettings(slots=1)) as executor:
        assert await executor.adopt(job) is None


async def test_many_steps_leak_no_process_and_no_descriptor(
    tmp_path: Path, nowhere: S3Config, sh: Sh
) -> None:
    async with ProcessExecutor(tmp_path / "pods", nowhere, ExecutorSettings(slots=4)) as executor:
        await asyncio.gather(*(executor.run(sh("true")) for _ in range(8)))
        await executor._cleanup.wait_for_all()
        before = len(os.listdir("/dev/fd"))
        await asyncio.gather(*(executor.run(sh("true")) for _ in range(40)))
        await executor._cleanup.wait_for_all()
        assert len(os.listdir("/dev/fd")) <= before
        process: Any = executor._fork_server._process
    assert process.poll() is not None
