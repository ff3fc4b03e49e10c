"""A real S3 store for the session, and executors on it."""

import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from minio import Minio

from periplus_local.argo.executor.artifact_repository import S3Config
from periplus_local.argo.executor.job import Job
from periplus_local.argo.executor.process_executor import ProcessExecutor
from periplus_local.argo.executor.settings import ExecutorSettings
from periplus_local.stack.testing import Servers


@pytest.fixture(scope="session")
def store(embedded: Servers) -> S3Config:
    """The store of the session's servers."""
    s3 = embedded.s3
    return S3Config(s3.endpoint, s3.access_key, s3.secret_key, s3.bucket)


def client_of(settings: S3Config) -> Minio:
    return Minio(
        settings.endpoint,
        access_key=settings.access_key,
        secret_key=settings.secret_key,
        secure=settings.secure,
    )


@pytest.fixture(scope="session")
def s3(store: S3Config) -> Minio:
    return client_of(store)


@pytest.fixture
def nowhere() -> S3Config:
    """An endpoint that does not answer, for steps without artifacts."""
    return S3Config("127.0.0.1:9", "none", "none", "none")


@pytest.fixture(params=["namespaces", "rewritten"])
async def executor(
    request: pytest.FixtureRequest, tmp_path: Path, nowhere: S3Config
) -> AsyncIterator[ProcessExecutor]:
    """An executor with a mount namespace per step, and one that rewrites paths."""
    async with executor_on(nowhere, tmp_path, namespaces=request.param == "namespaces") as opened:
        yield opened


@pytest.fixture(params=["namespaces", "rewritten"])
async def stored(
    request: pytest.FixtureRequest, tmp_path: Path, store: S3Config
) -> AsyncIterator[ProcessExecutor]:
    """The same two, with a store."""
    async with executor_on(store, tmp_path, namespaces=request.param == "namespaces") as opened:
        yield opened


@asynccontextmanager
async def executor_on(s3: S3Config, folder: Path, *, namespaces: bool) -> AsyncIterator[ProcessExecutor]:
    settings = ExecutorSettings(slots=2, grace=timedelta(seconds=0.5), namespaces=namespaces)
    async with ProcessExecutor(folder / "pods", s3, settings) as opened:
        if namespaces and opened.isolation == "none":
            pytest.skip(f"no namespaces here: {opened.isolation_reason}")
        yield opened


@pytest.fixture
def sh() -> Callable[..., Job]:
    """A job that runs a line of shell; keywords are the template's inputs and outputs."""

    def make(line: str, *, container: dict[str, Any] | None = None, **given: Any) -> Job:
        job = {key: given.pop(key) for key in ("capture_result", "deadline_seconds") if key in given}
        name = given.pop("id", f"wf-{uuid.uuid4().hex[:8]}")
        main = {"command": ["sh", "-c"], "args": [line], **(container or {})}
        return Job(name, "wf", f"wf-{name}", {"container": main, **given}, f"wf/{name}", **job)

    return make


def parameters(**paths: str) -> dict[str, Any]:
    """LogCapture parameters by name and path."""
    return {"parameters": [{"name": n, "valueFrom": {"path": p}} for n, p in paths.items()]}


@pytest.fixture(name="parameters")
def _parameters() -> Callable[..., dict[str, Any]]:
    return parameters


@pytest.fixture
def wait_for() -> Callable[[Callable[[], Any]], Any]:
    """Wait until something is true; gives its value."""

    def wait(true: Callable[[], Any], seconds: float = 60) -> Any:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if value := true():
                return value
            time.sleep(0.02)
        return pytest.fail(f"not true within {seconds} seconds")

    return wait


@pytest.fixture
def alive(tmp_path: Path) -> Callable[[int], bool]:
    """Whether a process of a step of this test runs (a zombie does not), by the process id that the step knows."""
    mark = str(tmp_path).encode()

    def check(pid: int) -> bool:
        return any(
            _known_as(pid, process) and _has(mark, process) for process in Path("/proc").glob("[0-9]*")
        )

    return check


def _known_as(pid: int, process: Path) -> bool:
    try:
        fields = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
    except OSError:
        return False  # it ended meanwhile
    return int(fields["NSpid"].split()[-1]) == pid and fields["State"].split()[0] != "Z"


def _has(mark: bytes, process: Path) -> bool:
    """Whether the folder is in its variables, where paths are rewritten, or has its root."""
    try:
        return any(mark in (process / name).read_bytes() for name in ("environ", "mountinfo"))
    except OSError:
        return False  # it ended meanwhile, or it is another user's
