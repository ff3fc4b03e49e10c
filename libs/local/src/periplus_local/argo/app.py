"""The wiring of the local Argo: opened in order, closed in reverse."""

import asyncio
import contextlib
import fcntl
import logging
import os
import secrets
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from periplus_local.argo.hub import Hub
from periplus_local.argo.library import Shelves
from periplus_local.argo.limits import Mutexes
from periplus_local.argo.pods.pods import Pods
from periplus_local.argo.pods.store import S3Store
from periplus_local.argo.rest.routes import routes
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

    The address is written to `<home>/address`, the token (made when none is set) to its file, which is
    `<home>/token` unless the settings name another.
    Workflows that had not ended go on. Raises RuntimeError when another server has the home.
    """
    home = settings.home.resolve()
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    key, secret = settings.s3_access_key.get_secret_value(), settings.s3_secret_key.get_secret_value()
    s3 = S3Store(settings.s3_endpoint, key, secret, settings.s3_bucket)
    with _sole(home), contextlib.closing(Store(home / "state.sqlite3")) as store:
        token = _token(home, settings)
        async with Pods(home / "pods", s3, settings.slots) as pods:
            hub, shelves = Hub(), Shelves(store)
            around = Surroundings(pods, shelves, Mutexes(), _repository(settings), settings.grace_seconds)
            workflows = Workflows(store, hub, around)
            workflows.recover()
            try:
                async with _serving(routes(workflows, shelves, pods, token), settings.port) as (port, task):
                    address = f"http://127.0.0.1:{port}"
                    _written(home / "address", address)
                    yield LocalArgo(address, token, workflows, task)
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


def _token(home: Path, settings: ArgoSettings) -> str:
    path = settings.token_file or home / "token"
    if settings.token is not None:
        token = settings.token.get_secret_value()
    elif path.exists():
        return path.read_text().strip()
    else:
        token = secrets.token_urlsafe(32)
    _written(path, token)
    return token


def _written(path: Path, text: str) -> None:
    fresh = path.with_suffix(".new")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    fresh.replace(path)


def _repository(settings: ArgoSettings) -> dict[str, Any]:
    s3 = {"bucket": settings.s3_bucket, "endpoint": settings.s3_endpoint, "insecure": True}
    return {"artifactRepository": {"archiveLogs": False, "s3": s3}, "default": True}


class _Server(uvicorn.Server):
    """A uvicorn that leaves signals to the process it is part of."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


@asynccontextmanager
async def _serving(application: ASGIApp, port: int) -> AsyncIterator[tuple[int, "asyncio.Task[None]"]]:
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.1", port))
        config = uvicorn.Config(
            application, lifespan="off", log_level="warning", access_log=False, timeout_graceful_shutdown=1
        )
        server = _Server(config)
        task = asyncio.create_task(server.serve(sockets=[listening]), name="local-argo-http")
        while not server.started and not task.done():  # noqa: ASYNC110 - it has no event to wait for
            await asyncio.sleep(0.005)
        try:
            yield listening.getsockname()[1], task
        finally:
            server.should_exit = True
            await task
