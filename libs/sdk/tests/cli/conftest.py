"""The command against services with scripted responses, over real gRPC with the interceptors of the services."""

import asyncio
import fcntl
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from periplus.cache.v1 import cache_pb2_grpc
from periplus.dispatcher.v1 import dispatcher_pb2_grpc
from periplus.lineage.v1 import lineage_pb2_grpc
from periplus.sdk.cli import main
from periplus.snapshotter.v1 import snapshotter_pb2_grpc
from periplus_common import rpc
from periplus_common.errors import NotFound

TOKEN = "the token"


@dataclass
class Script:
    """The responses of the services by method: a message, a function of the request, an error to raise, or for a stream a
    list, in which a number waits for that many seconds.
    """

    answers: dict[str, Any] = field(default_factory=dict)
    calls: list[tuple[str, Any]] = field(default_factory=list)

    def requests(self, method: str) -> list[Any]:
        return [request for name, request in self.calls if name == method]

    def answer(self, method: str, request: Any) -> Any:
        self.calls.append((method, request))
        response = self.answers.get(method, NotFound(f"nothing is scripted for {method}"))
        if callable(response):
            response = response(request)
        if isinstance(response, Exception):
            raise response
        return response


def servicer(kind: type, streams: set[str], script: Script) -> object:
    """A servicer whose every method responds from the script."""

    def unary(name: str) -> Callable[..., Any]:
        async def method(self: object, request: Any, context: object) -> Any:
            return script.answer(name, request)

        return method

    def stream(name: str) -> Callable[..., Any]:
        async def method(self: object, request: Any, context: object) -> Any:
            for one in script.answer(name, request):
                if isinstance(one, Exception):
                    raise one
                if isinstance(one, float):
                    await asyncio.sleep(one)
                    continue
                yield one

        return method

    names = [name for name in vars(kind) if not name.startswith("_")]
    return type("Scripted", (kind,), {n: stream(n) if n in streams else unary(n) for n in names})()


@pytest.fixture(scope="session")
def _served() -> Iterator[tuple[Script, int]]:
    """One server for all four services, in a thread, for the whole session."""
    script, ready, loop = Script(), threading.Event(), asyncio.new_event_loop()
    ports: list[int] = []
    stop = asyncio.Event()

    async def serve() -> None:
        kinds = [
            (dispatcher_pb2_grpc, "Dispatcher", {"ReadLogs", "AdoptRuns"}),
            (lineage_pb2_grpc, "Lineage", {"WatchRun"}),
            (cache_pb2_grpc, "Cache", set()),
            (snapshotter_pb2_grpc, "Snapshotter", set()),
        ]

        def register(server: Any) -> None:
            for module, name, streams in kinds:
                scripted = servicer(getattr(module, f"{name}ServiceServicer"), streams, script)
                getattr(module, f"add_{name}ServiceServicer_to_server")(scripted, server)

        async with rpc.serving("127.0.0.1:0", TOKEN, register, names=[], grace=timedelta(0)) as port:
            ports.append(port)
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), daemon=True)
    thread.start()
    assert ready.wait(20)
    yield script, ports[0]
    loop.call_soon_threadsafe(stop.set)
    thread.join(20)


@pytest.fixture
def script(_served: tuple[Script, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Script]:
    """The script of the services, which are configured by a client.json as after `periplus up`."""
    found, port = _served
    found.answers.clear()
    found.calls.clear()
    names = ("dispatcher", "cache", "snapshotter", "lineage")
    connection = dict.fromkeys(names, f"127.0.0.1:{port}") | {"token": TOKEN, "project": "default"}
    clean(monkeypatch)
    monkeypatch.setenv("PERIPLUS_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    with held_home(tmp_path / "home", json.dumps(connection | {"lock": "held"})):
        yield found


@pytest.fixture
def in_held_home() -> Callable[[Path, str | None], AbstractContextManager[None]]:
    """Enters a home whose lock is held, with these settings for clients."""
    return held_home


@contextmanager
def held_home(home: Path, settings: str | None) -> Iterator[None]:
    """A home with these settings for clients, as while a stack runs."""
    for folder in (home, home / "run"):
        folder.mkdir(mode=0o700, exist_ok=True)
    for file, text in (("client.json", settings), ("run/lock", "held")):
        if text is not None:
            (home / file).touch(mode=0o600)
            (home / file).write_text(text)
    with (home / "run/lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the variables of the developer's environment."""
    for name in ("DISPATCHER", "CACHE", "SNAPSHOTTER", "LINEAGE", "TOKEN", "PROJECT", "HOME", "DEBUG"):
        monkeypatch.delenv(f"PERIPLUS_{name}", raising=False)


@dataclass
class Result:
    """The output and the exit code of a command."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def periplus(capfd: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Run one command in this process."""

    def command(*arguments: str) -> Result:
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        out, err = capfd.readouterr()
        return Result(int(ended.value.code or 0), out, err)

    return command


@pytest.fixture
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An environment and a folder without a stack."""
    clean(monkeypatch)
    monkeypatch.chdir(tmp_path)
