"""For tests: a blocking client of Argo, and the local Argo in a thread or in a process that can be killed."""

import asyncio
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from periplus_local.argo.app import app
from periplus_local.argo.settings import ArgoSettings
from periplus_local.stack.running_process import tied_to_this_process

POLL_SECONDS = 0.02
START_SECONDS = 120.0
COMPLETED = "workflows.argoproj.io/completed"
Body = dict[str, Any]


class Refusal(Exception):
    """The server answered with an error: its HTTP status and body."""

    def __init__(self, status: int, body: str) -> None:
        super().__init__(f"{status} {body}")
        self.status = status
        self.body = body


@dataclass(frozen=True)
class Client:
    """A blocking client of Argo's REST API, real or local."""

    address: str
    token: str
    namespace: str = "argo"

    def call(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Any:
        """The JSON answer of a path below /api/v1/; raises Refusal for an error."""
        with self.open(method, path, body, headers) as response:
            return json.load(response)

    def open(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: dict[str, str] | None = None,
        seconds: float = 30,
    ) -> Any:
        """The open response of a path below /api/v1/, to be read as a stream; raises Refusal for an error."""
        data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        defaults = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        url = f"{self.address}/api/v1/{path}"
        request = urllib.request.Request(url, data, defaults | (headers or {}), method=method)  # noqa: S310
        context = ssl.create_default_context() if url.startswith("https") else None
        if context is not None and os.environ.get("ARGO_INSECURE") == "true":
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        try:
            return urllib.request.urlopen(request, timeout=seconds, context=context)  # noqa: S310
        except urllib.error.HTTPError as error:
            raise Refusal(error.code, error.read().decode()) from error

    def connect(self, seconds: float = 20) -> socket.socket:
        """An open connection to the server, to send it what no client would."""
        host, port = self.address.partition("://")[2].split(":")
        connection = socket.create_connection((host, int(port)), timeout=seconds)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def create(self, workflow: Body) -> str:
        """Create a workflow; its name."""
        created = self.call("POST", f"workflows/{self.namespace}", {"workflow": workflow})
        return str(created["metadata"]["name"])

    def get(self, name: str) -> Body:
        """The current state of a workflow."""
        return dict(self.call("GET", f"workflows/{self.namespace}/{name}"))

    def do(self, name: str, action: str, **arguments: Any) -> Body:
        """Apply an action ("set", "resume", "stop", …) to a workflow; the workflow after it."""
        body = {"name": name, "namespace": self.namespace, **arguments}
        return dict(self.call("PUT", f"workflows/{self.namespace}/{name}/{action}", body))

    def answer(self, name: str, node: str, values: dict[str, str], phase: str = "Succeeded") -> Body:
        """Set the output parameters and the phase of the suspend node with that id."""
        parameters = json.dumps(values)
        return self.do(name, "set", nodeFieldSelector=f"id={node}", phase=phase, outputParameters=parameters)

    def until(self, name: str, condition: Callable[[Body], Any], seconds: float = 60) -> Body:
        """Wait until the condition is true of the workflow, and give it; AssertionError after `seconds`."""
        end = time.monotonic() + seconds
        while True:
            workflow = self.get(name)
            if condition(workflow):
                return workflow
            if time.monotonic() > end:
                raise AssertionError(
                    f"{name} after {seconds} seconds: {json.dumps(workflow['status'])[:4000]}"
                )
            time.sleep(POLL_SECONDS)

    def ended(self, name: str, seconds: float = 60) -> Body:
        """Wait until the workflow has ended, and give it."""
        return self.until(name, has_ended, seconds)


def has_ended(workflow: Body) -> bool:
    """Whether the workflow has ended."""
    return (workflow["metadata"].get("labels") or {}).get(COMPLETED) == "true"


def nodes_of(workflow: Body) -> dict[str, Body]:
    """The nodes of a workflow by name."""
    nodes = (workflow.get("status") or {}).get("nodes") or {}
    return {node["name"]: node for node in nodes.values()}


def phases_of(workflow: Body) -> dict[str, str]:
    """The phases of a workflow's nodes by name, with "$" for the workflow's own name."""
    name = workflow["metadata"]["name"]
    return {"$" + key.removeprefix(name): node["phase"] for key, node in nodes_of(workflow).items()}


class ArgoThread(threading.Thread):
    """A local Argo in a thread with an event loop of its own: `with ArgoThread(settings) as client`."""

    def __init__(self, settings: ArgoSettings) -> None:
        super().__init__(name="local-argo")
        self._settings = settings
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop_requested = asyncio.Event()
        self.client: Client | None = None

    def run(self) -> None:
        """Serve in this thread."""
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        try:
            async with app(self._settings) as argo:
                self.client = Client(argo.address, argo.token)
                self._ready.set()
                await self._stop_requested.wait()
        finally:
            self._ready.set()

    def __enter__(self) -> Client:
        """Start the server; gives a client once it answers."""
        self.start()
        self._ready.wait(START_SECONDS)
        if self.client is None:
            raise RuntimeError("the local Argo did not start")
        return self.client

    def __exit__(self, *_: object) -> None:
        """Stop the server."""
        if self._loop is not None and self.is_alive():
            self._loop.call_soon_threadsafe(self._stop_requested.set)
        self.join(START_SECONDS)


class ArgoProcess:
    """A local Argo as a process of its own, which can be killed and started again on the same home."""

    def __init__(self, home: Path, **settings: Any) -> None:
        """`settings` are fields of ArgoSettings."""
        self.home = home
        self._env = {f"ARGO_{key.upper()}": str(value) for key, value in settings.items()}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id of the server."""
        if self._process is None:
            raise RuntimeError("the local Argo is not running")
        return self._process.pid

    def begin(self) -> None:
        """Start the server without waiting for it."""
        (self.home / "address").unlink(missing_ok=True)
        env = {**os.environ, **self._env, "ARGO_HOME": str(self.home)}
        command = tied_to_this_process([sys.executable, "-m", "periplus_local.argo"], signal.SIGTERM)
        self._process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL)  # noqa: S603

    def start(self) -> Client:
        """Start the server; gives a client once it answers."""
        self.begin()
        address = self.home / "address"
        end = time.monotonic() + START_SECONDS
        while not address.exists():
            if self._process is None or self._process.poll() is not None or time.monotonic() > end:
                raise RuntimeError("the local Argo did not start")
            time.sleep(POLL_SECONDS)
        return Client(address.read_text(), (self.home / "token").read_text())

    def kill(self) -> None:
        """Kill the process, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> None:
        """Stop the process with SIGTERM and wait for its end."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(START_SECONDS)


@contextmanager
def local_argo(**settings: Any) -> Iterator[Client]:
    """A local Argo in a thread on a new home, outside of /tmp since steps have a private /tmp."""
    with (
        tempfile.TemporaryDirectory(dir="/var/tmp", prefix="argo-") as home,
        ArgoThread(ArgoSettings(home=Path(home), **settings)) as client,
    ):
        yield client
