"""The end of a step: by its deadline, by a stop, with all that it started."""

# A test may block: nothing else runs in its loop.
# ruff: noqa: ASYNC110,PTH208

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from periplus_local.argo.pods.folder import Folder
from periplus_local.argo.pods.job import Job
from periplus_local.argo.pods.pods import Pods
from periplus_local.argo.pods.store import S3Store

Sh = Callable[..., Job]
Alive = Callable[[int], bool]
LATE = "Pod was active on the node longer than the specified deadline"
LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs a subreaper")


async def log_lines(pods: Pods, job: Job, count: int) -> list[str]:
    """Wait for some lines of a running step's log."""
    for _ in range(500):
        log = pods.logs(job.id)
        found = log.read_text().splitlines() if log.exists() else []
        if len(found) >= count:
            return found
        await asyncio.sleep(0.02)
    return pytest.fail("it printed too little")


async def test_a_deadline_ends_a_step(pods: Pods, sh: Sh) -> None:
    done = await pods.run(sh("sleep 60", deadline_seconds=0.3))
    assert (done.phase, done.message, done.exit_code) == ("Failed", LATE, 143)


async def test_a_step_that_ignores_sigterm_is_killed_after_the_grace(pods: Pods, sh: Sh) -> None:
    line = "trap '' TERM; while :; do sleep 0.05; done"
    done = await pods.run(sh(line, deadline_seconds=0.3))
    assert (done.phase, done.message, done.exit_code) == ("Failed", LATE, 137)


async def test_a_step_may_clean_up_within_the_grace(pods: Pods, sh: Sh) -> None:
    job = sh("trap 'echo bye; exit 5' TERM; echo up; while :; do sleep 0.01; done")
    running = asyncio.create_task(pods.run(job))
    await log_lines(pods, job, 1)
    await pods.stop(job.id, 10)
    done = await running
    assert (done.phase, done.exit_code) == ("Failed", 5)
    assert "bye" in pods.logs(job.id).read_text()


async def test_a_stop_kills_what_ignores_it(pods: Pods, sh: Sh) -> None:
    job = sh("trap '' TERM; echo up; while :; do sleep 0.05; done")
    running = asyncio.create_task(pods.run(job))
    await log_lines(pods, job, 1)
    await pods.stop(job.id, 0.2)
    assert (await running).exit_code == 137


async def test_a_stop_that_comes_before_the_slot_means_that_nothing_starts(
    tmp_path: Path, nowhere: S3Store, sh: Sh
) -> None:
    async with Pods(tmp_path / "pods", nowhere, 1) as pods:
        first, second = sh("sleep 0.5"), sh("echo ran")
        one = asyncio.create_task(pods.run(first))
        while not pods.logs(first.id).exists():
            await asyncio.sleep(0.01)
        two = asyncio.create_task(pods.run(second))
        await asyncio.sleep(0.1)
        await pods.stop(second.id, 1)
        assert (await two).phase == "Failed"
        assert (await one).phase == "Succeeded"
        assert not pods.logs(second.id).exists()


async def test_a_stop_of_a_job_that_nobody_knows_does_nothing(pods: Pods) -> None:
    await pods.stop("never-seen", 1)


async def test_children_in_the_background_end_with_the_step(pods: Pods, sh: Sh, alive: Alive) -> None:
    job = sh("sleep 60 & echo $!; exit 0")
    assert (await pods.run(job)).phase == "Succeeded"
    assert not alive(int(pods.logs(job.id).read_text()))


@LINUX
async def test_a_daemon_in_a_session_of_its_own_ends_with_the_step(pods: Pods, sh: Sh, alive: Alive) -> None:
    line = "(setsid sh -c 'trap \"\" TERM HUP; echo $$$$; sleep 60; sleep 60' &) ; sleep 0.3"
    job = sh(line)
    done = await pods.run(job)
    assert done.phase == "Succeeded"
    assert done.finished_at - done.started_at < 30
    assert not alive(int(pods.logs(job.id).read_text()))


async def test_a_step_that_closes_its_outputs_is_waited_for(pods: Pods, sh: Sh) -> None:
    job = sh("echo before; exec >&- 2>&-; sleep 0.2; exit 6")
    assert (await pods.run(job)).exit_code == 6
    assert pods.logs(job.id).read_text() == "before\n"


async def test_a_step_that_prints_too_much_has_a_log_that_says_so(
    tmp_path: Path, nowhere: S3Store, sh: Sh
) -> None:
    async with Pods(tmp_path / "pods", nowhere, 1, log_bytes=100_000) as pods:
        job = sh("head -c 50000000 /dev/zero; echo end", capture_result=True)
        done = await pods.run(job)
        assert done.phase == "Succeeded"
        assert done.result is not None
        assert done.result.endswith("end")
        log = pods.logs(job.id).read_bytes()
        assert log[100_000:] == b"\n[the log ends here: it reached its limit of 100000 bytes]\n"


@LINUX
async def test_a_full_disk_under_the_log_is_an_error_of_the_step(pods: Pods, sh: Sh, tmp_path: Path) -> None:
    job = sh("sleep 0.3; echo x; exit 0")
    folder = Folder(tmp_path / "pods", job.id)
    running = asyncio.create_task(pods.run(job))
    while not (folder.path / "spec").exists():
        await asyncio.sleep(0.001)
    folder.log.unlink(missing_ok=True)
    folder.log.symlink_to("/dev/full")
    done = await running
    if "No space left" not in done.message:
        pytest.skip("the step was quicker than the test")
    assert done.phase == "Error"


@LINUX
async def test_a_killed_launcher_takes_its_step_along_and_the_step_is_an_error(
    pods: Pods, sh: Sh, tmp_path: Path, alive: Alive
) -> None:
    job = sh("echo $$$$; (setsid sh -c 'echo $$$$; sleep 60; echo') & sleep 60; echo")
    running = asyncio.create_task(pods.run(job))
    pids = [int(line) for line in await log_lines(pods, job, 2)]
    pid = Folder(tmp_path / "pods", job.id).attempt_pid()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    done = await running
    assert done.phase == "Error"
    assert "killed by signal 9" in done.message
    for _ in range(200):
        if not any(map(alive, pids)):
            break
        await asyncio.sleep(0.02)
    assert not any(map(alive, pids))


async def test_when_the_launcher_dies_its_steps_go_on_and_new_ones_start(pods: Pods, sh: Sh) -> None:
    job = sh("echo up; sleep 0.5; echo done", capture_result=True)
    running = asyncio.create_task(pods.run(job))
    await log_lines(pods, job, 1)
    process = pods._launching._process
    assert process is not None
    process.kill()
    process.wait()
    assert (await pods.run(sh("true"))).phase == "Succeeded"
    done = await running
    assert (done.phase, done.result) == ("Succeeded", "up\ndone")


async def test_leaving_the_executor_ends_its_steps_and_they_are_to_be_run_again(
    tmp_path: Path, nowhere: S3Store, sh: Sh, alive: Alive
) -> None:
    job = sh("echo $$$$; sleep 60; echo")
    async with Pods(tmp_path / "pods", nowhere, 1) as pods:
        running = asyncio.create_task(pods.run(job))
        pid = int((await log_lines(pods, job, 1))[0])
    assert not alive(pid)
    with pytest.raises(asyncio.CancelledError):
        await running
    async with Pods(tmp_path / "pods", nowhere, 1) as pods:
        assert await pods.adopt(job) is None


async def test_many_steps_leave_no_process_and_no_descriptor(
    tmp_path: Path, nowhere: S3Store, sh: Sh
) -> None:
    async with Pods(tmp_path / "pods", nowhere, 4) as pods:
        await asyncio.gather(*(pods.run(sh("true")) for _ in range(8)))
        await pods._tidying.all_over()
        before = len(os.listdir("/dev/fd"))
        await asyncio.gather(*(pods.run(sh("true")) for _ in range(40)))
        await pods._tidying.all_over()
        assert len(os.listdir("/dev/fd")) <= before
        process: Any = pods._launching._process
    assert process.poll() is not None
