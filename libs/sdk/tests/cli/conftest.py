"""The command against services with scripted responses, over real gRPC with the interceptors of the services."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
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
            (dispatcher_pb2_grpc, "Dispatcher", {"ReadLogs"}),
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
def script(_served: tuple[Script, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Script:
    """The script of the services, which are configured by a client.json as after `periplus up`."""
    found, port = _served
    found.answers.clear()
    found.calls.clear()
    home = tmp_path / "home"
    home.mkdir()
    names = ("dispatcher", "cache", "snapshotter", "lineage")
    connection = dict.fromkeys(names, f"127.0.0.1:{port}") | {"token": TOKEN, "project": "default"}
    (home / "client.json").write_text(json.dumps(connection))
    clean(monkeypatch)
    monkeypatch.setenv("PERIPLUS_HOME", str(home))
    monkeypatch.chdir(tmp_path)
    return found


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
