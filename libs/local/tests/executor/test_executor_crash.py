"""After kill -9 of the server: ended jobs are found, running ones are waited for, others are run again."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from minio import Minio

from periplus_local.argo.executor.artifact_repository import S3Config
from periplus_local.argo.executor.job import Job
from periplus_local.argo.executor.job_folder import JobFolder
from periplus_local.argo.executor.process_executor import ProcessExecutor
from periplus_local.argo.executor.settings import ExecutorSettings

Sh = Callable[..., Job]
Wait = Callable[..., Any]

SERVER = """
import asyncio, json, sys
from datetime import timedelta
from pathlib import Path
from periplus_local.argo.executor.job import Job
from periplus_local.argo.executor.process_executor import ProcessExecutor
from periplus_local.argo.executor.settings import ExecutorSettings
from periplus_local.argo.executor.artifact_repository import S3Config

async def main():
    given = json.loads(sys.argv[1])
    async with ProcessExecutor(Path(given["home"]), S3Config(**given["store"]), ExecutorSettings(slots=2, grace=timedelta(seconds=0.5))) as executor:
        await executor.run(Job(**given["job"]))
        print("done", flush=True)
        await asyncio.sleep(600)

asyncio.run(main())
"""


@pytest.fixture
def crash(tmp_path: Path, store: S3Config) -> Callable[..., None]:
    """Run a job in a server of its own, and kill that server once `when` is true."""

    def run(job: Job, when: Callable[[], Any], wait: Wait) -> None:
        given = {"home": str(tmp_path / "pods"), "store": asdict(store), "job": asdict(job)}
        server = subprocess.Popen([sys.executable, "-c", SERVER, json.dumps(given)])
        try:
            wait(when)
        finally:
            os.kill(server.pid, signal.SIGKILL)
            server.wait()

    return run


async def adopt(tmp_path: Path, store: S3Config, job: Job) -> Any:
    async with ProcessExecutor(
        tmp_path / "pods", store, ExecutorSettings(slots=2, grace=timedelta(seconds=0.5))
    ) as executor:
        return await asyncio.wait_for(executor.adopt(job), 30)


async def test_a_step_that_still_runs_is_waited_for_and_runs_once(
    tmp_path: Path, store: S3Config, s3: Minio, sh: Sh, crash: Any, wait_for: Wait
) -> None:
    outputs = {
        "parameters": [{"name": "p", "valueFrom": {"path": "/tmp/p"}}],
        "artifacts": [{"name": "a", "path": "/out-of-pod/a"}],
    }
    line = "echo up; sleep 1; echo p > /tmp/p; mkdir /out-of-pod; echo a > /out-of-pod/a; echo end"
    job = sh(line, outputs=outputs, capture_result=True)
    folder = JobFolder(tmp_path / "pods", job.id)
    crash(job, lambda: folder.log.exists() and folder.log.read_text(), wait_for)
    assert folder.is_running()
    assert folder.ending() is None
    done = await adopt(tmp_path, store, job)
    assert (done.phase, done.result, done.parameters) == ("Succeeded", "up\nend", {"p": "p"})
    assert s3.stat_object("artifacts", done.artifacts[0]["s3"]["key"]).size
    assert folder.log.read_text() == "up\nend\n"


async def test_a_step_that_ended_between_two_servers_is_not_run_again(
    tmp_path: Path, store: S3Config, sh: Sh, crash: Any, wait_for: Wait
) -> None:
    job = sh("echo up; sleep 0.3; exit 7")
    folder = JobFolder(tmp_path / "pods", job.id)
    crash(job, lambda: folder.log.exists() and folder.log.read_text(), wait_for)
    wait_for(lambda: not folder.is_running())
    done = await adopt(tmp_path, store, job)
    assert (done.phase, done.message) == ("Failed", "main: Error (exit code 7)")


async def test_a_job_whose_outputs_were_collected_has_the_same_result_after_a_crash(
    tmp_path: Path, store: S3Config, sh: Sh, crash: Any, wait_for: Wait
) -> None:
    job = sh("echo v > /tmp/p", outputs={"parameters": [{"name": "p", "valueFrom": {"path": "/tmp/p"}}]})
    folder = JobFolder(tmp_path / "pods", job.id)
    crash(job, (folder.path / "result").exists, wait_for)
    first = await adopt(tmp_path, store, job)
    assert first.parameters == {"p": "v"}
    assert await adopt(tmp_path, store, job) == first


async def test_a_deadline_is_enforced_without_a_server(
    tmp_path: Path, store: S3Config, sh: Sh, crash: Any, wait_for: Wait
) -> None:
    job = sh("echo up; sleep 60", deadline_seconds=1.5)
    folder = JobFolder(tmp_path / "pods", job.id)
    crash(job, lambda: folder.log.exists() and folder.log.read_text(), wait_for)
    wait_for(lambda: not folder.is_running())
    done = await adopt(tmp_path, store, job)
    assert (done.phase, done.exit_code) == ("Failed", 143)
    assert "deadline" in done.message


async def test_a_step_of_an_earlier_server_can_be_stopped(
    tmp_path: Path, store: S3Config, sh: Sh, crash: Any, wait_for: Wait
) -> None:
    job = sh("trap '' TERM; echo up; while :; do sleep 0.05; done")
    folder = JobFolder(tmp_path / "pods", job.id)
    crash(job, lambda: folder.log.exists() and folder.log.read_text(), wait_for)
    async with ProcessExecutor(tmp_path / "pods", store, ExecutorSettings(slots=2)) as executor:
        adopted = asyncio.create_task(executor.adopt(job))
        await asyncio.sleep(0.1)
        refused = await executor.run(job)
        assert "still running" in refused.message
        await executor.stop(job.id, timedelta(seconds=0.2))
        done = await adopted
    assert done is not None
    assert (done.phase, done.exit_code) == ("Failed", 137)


async def test_a_job_that_never_started_or_has_no_record_is_run_again(
    tmp_path: Path, store: S3Config, sh: Sh, crash: Any, wait_for: Wait
) -> None:
    job = sh("echo up; sleep 60")
    assert await adopt(tmp_path, store, job) is None
    folder = JobFolder(tmp_path / "pods", job.id)
    crash(job, lambda: folder.log.exists() and folder.log.read_text(), wait_for)
    pid = folder.supervisor_pid()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    assert await adopt(tmp_path, store, job) is None
    async with ProcessExecutor(tmp_path / "pods", store, ExecutorSettings(slots=2)) as executor:
        rerun = sh("echo again", id=job.id)
        assert (await executor.run(rerun)).phase == "Succeeded"
        assert executor.log_path(job.id).read_text() == "again\n"


async def test_a_truncated_record_is_read_as_missing(tmp_path: Path, sh: Sh) -> None:
    folder = JobFolder(tmp_path, "job")
    folder.create()
    for cut in (b"", bytes(4096), b'{"code": 0, "sig', b"\xff\xfe{"):
        (folder.path / "exit").write_bytes(cut)
        assert folder.ending() is None
