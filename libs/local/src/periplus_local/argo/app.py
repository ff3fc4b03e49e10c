"""The wiring of the local Argo: opened in order, closed in reverse."""

import asyncio
import contextlib
import fcntl
import logging
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from periplus_local.argo import credential
from periplus_local.argo.executor.artifact_repository import S3Config
from periplus_local.argo.executor.process_executor import ProcessExecutor
from periplus_local.argo.executor.settings import ExecutorSettings
from periplus_local.argo.hub import Hub
from periplus_local.argo.library import Shelves
from periplus_local.argo.limits import Mutexes
from periplus_local.argo.rest.routes import routes
from periplus_local.argo.rest.server import serving
from periplus_local.argo.run import Surroundings
from periplus_local.argo.settings import ArgoSettings
from periplus_local.argo.store import Store
from periplus_local.argo.workflows import Workflows

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LocalArgo:
    """A local Argo that is up: its address, and the token that callers must send."""

    address: str
    token: str
    workflows: Workflows
    serving: "asyncio.Task[None]"


@asynccontextmanager
async def app(settings: ArgoSettings) -> AsyncIterator[LocalArgo]:
    """Serve Argo's API on loopback until the context is left.

    The address is written to `<home>/address`; the token lies in `<home>/token` unless the settings name
    another file. Workflows that had not ended go on. Raises RuntimeError when another server has the home,
    and TokenError when the file cannot hold the token.
    """
    home = settings.home.resolve()
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    key, secret = settings.s3_access_key, settings.s3_secret_key
    s3 = S3Config(settings.s3_endpoint, key, secret, settings.s3_bucket, settings.s3_secure)
    with _sole(home), contextlib.closing(Store(home / "state.sqlite3")) as store:
        token = credential.kept(settings.token_file or home / "token")
        async with ProcessExecutor(home / "pods", s3, ExecutorSettings(slots=settings.slots)) as executor:
            hub, shelves = Hub(), Shelves(store)
            repository, grace = _repository(settings), timedelta(seconds=settings.grace_seconds)
            around = Surroundings(
                executor, shelves, Mutexes(), repository, grace, settings.transient_error_pattern
            )
            workflows = Workflows(store, hub, around)
            workflows.recover()
            try:
                async with serving(routes(workflows, shelves, executor, token), settings.port) as (
                    port,
                    task,
                ):
                    address = f"http://127.0.0.1:{port}"
                    _written(home / "address", address)
                    try:
                        yield LocalArgo(address, token, workflows, task)
                    finally:
                        hub.close()
            finally:
                await workflows.close()


@contextmanager
def _sole(home: Path) -> Iterator[None]:
    with (home / "lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            raise RuntimeError(f"{home} is in use by the local Argo with pid {lock.read()}") from error
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def _written(path: Path, text: str) -> None:
    fresh = path.with_suffix(".new")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    fresh.replace(path)


def _repository(settings: ArgoSettings) -> dict[str, Any]:
    place = {"bucket": settings.s3_bucket, "endpoint": settings.s3_endpoint}
    s3 = {**place, "insecure": not settings.s3_secure}
    return {"artifactRepository": {"archiveLogs": False, "s3": s3}, "default": True}
