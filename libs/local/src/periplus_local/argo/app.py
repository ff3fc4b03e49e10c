"""The wiring of the local Argo: opened in order, closed in reverse."""

import asyncio
import contextlib
import fcntl
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from periplus_local.argo import token_file
from periplus_local.argo.api.routes import api
from periplus_local.argo.api.server import port_on_loopback, serving, unix_socket
from periplus_local.argo.controller.synchronization import Mutexes
from periplus_local.argo.controller.watch import WatchHub
from periplus_local.argo.controller.workflow_controller import WorkflowController
from periplus_local.argo.controller.workflow_run import ControllerContext
from periplus_local.argo.executor.artifact_repository import S3Config
from periplus_local.argo.executor.process_executor import ProcessExecutor
from periplus_local.argo.executor.settings import ExecutorSettings
from periplus_local.argo.settings import ArgoSettings
from periplus_local.argo.storage.state_store import StateStore
from periplus_local.argo.template_store import TemplateStore


@dataclass(frozen=True)
class LocalArgo:
    """A running local Argo: its address (http://host:port or unix:/path), the token that callers must send, and the task that serves HTTP."""

    address: str
    token: str
    controller: WorkflowController
    serving: "asyncio.Task[None]"


@asynccontextmanager
async def app(settings: ArgoSettings) -> AsyncIterator[LocalArgo]:
    """Serve Argo's API on a Unix socket or on loopback until the context is left; workflows that had not ended go on.

    The address is written to `<home>/address`; the token is in `<home>/token` unless the settings name another file.
    Raises RuntimeError when another server uses the home, and TokenError when the file cannot hold the token.
    """
    home = settings.home.resolve()
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    key, secret = settings.s3_access_key, settings.s3_secret_key
    s3 = S3Config(
        settings.s3_endpoint, key, secret, settings.s3_bucket, settings.s3_secure, settings.s3_ca_file
    )
    with _exclusive(home), contextlib.closing(StateStore(home / "state.sqlite3")) as state:
        token = token_file.read_or_create(settings.token_file or home / "token")
        executor_settings = ExecutorSettings(
            hidden=(home, *settings.hidden), hidden_list=settings.hidden_list, slots=settings.slots
        )
        async with ProcessExecutor(home / "pods", s3, executor_settings) as executor:
            watches, templates = WatchHub(), TemplateStore(state)
            context = ControllerContext(
                executor=executor,
                templates=templates,
                mutexes=Mutexes(),
                repository=_artifact_repository(settings),
                grace=timedelta(seconds=settings.grace_seconds),
                transient_errors=settings.transient_error_pattern,
                bounds=settings.bounds,
            )
            controller = WorkflowController(state, watches, context)
            controller.recover()
            application = api(controller, templates, executor, token, settings.http.body_timeout)
            try:
                listening, address = (
                    unix_socket(settings.socket) if settings.socket else port_on_loopback(settings.port)
                )
                async with serving(application, listening, settings.http) as task:
                    _write_private(home / "address", address)
                    try:
                        yield LocalArgo(address, token, controller, task)
                    finally:
                        watches.close()
            finally:
                await controller.close()


@contextmanager
def _exclusive(home: Path) -> Iterator[None]:
    """Hold the lock of the home."""
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


def _write_private(path: Path, text: str) -> None:
    temporary = path.with_suffix(".new")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    temporary.replace(path)


def _artifact_repository(settings: ArgoSettings) -> dict[str, Any]:
    s3 = {
        "bucket": settings.s3_bucket,
        "endpoint": settings.s3_endpoint,
        "insecure": not settings.s3_secure,
        "keyFormat": settings.key_format,
    }
    return {"artifactRepository": {"archiveLogs": False, "s3": s3}, "default": True}
