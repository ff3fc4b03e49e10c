"""A client knows to whom it speaks before it sends a secret: nothing that another user can listen on receives one."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import less_rights
import psutil
import pytest
from stack import Stack, up, wait_until_ended
from strangers import Stranger, listening

from periplus.cache.v1 import cache_pb2
from periplus.dispatcher.v1 import dispatcher_pb2
from periplus.lineage.v1 import lineage_pb2
from periplus.sdk.client.addresses import grpc_target
from periplus.snapshotter.v1 import snapshotter_pb2
from periplus_local.stack import lock
from periplus_local.stack.home import Home

LONG = "a folder%20 with #signs? " * 8
PERIPLUS = str(Path(sys.executable).with_name("periplus"))


@dataclass(frozen=True)
class Remembered:
    """What another user can remember of a stack that ran, or could guess, and all of its secrets."""

    home: Home
    settings: dict[str, str]
    ports: dict[str, int]
    secrets: set[str]


def remember(home: Home) -> Remembered:
    settings = json.loads(home.client_settings.read_text())
    ports = json.loads((home.run / "ports.json").read_text())
    holder = lock.holder(home)
    assert holder
    named = {**holder.addresses, **settings}
    for name, address in named.items():
        if (port := address.rpartition(":")[2]).isdigit():
            ports[name] = int(port)
    return Remembered(home, settings, ports, secrets_of(home))


def secrets_of(home: Home) -> set[str]:
    return {path.read_text().strip() for path in home.secrets.iterdir()}


@pytest.fixture(scope="module")
def home() -> Iterator[Home]:
    """A home whose path is longer than a socket's address, and full of characters that URIs escape.

    Other users can enter the folder that it is in, as they can not below pytest's.
    """
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="identity-") as folder:
        Path(folder).chmod(0o755)
        yield Home(Path(folder) / LONG / "home")


@pytest.fixture(scope="module")
def stopped(home: Home) -> Remembered:
    """What is known of a stack that ran and whose supervisor was killed."""
    home.path.mkdir(parents=True)
    (home.path / "planted").touch()  # so that it is a home from elsewhere
    with up(home.path, "--fresh") as running:
        assert not (home.path / "planted").exists()
        known = remember(home)
        children = psutil.Process(running.process.pid).children(recursive=True)
        os.kill(running.process.pid, signal.SIGKILL)
        wait_until_ended(children)
    return known


@pytest.fixture(scope="module")
def strangers(stopped: Remembered) -> Iterator[list[Stranger]]:
    """Servers of someone else on every port that the stack had."""
    with listening(stopped.ports) as found:
        yield found


@pytest.mark.parametrize("command", [["runs"], ["run", "examples/yaml/train.yaml"], ["down"], ["doctor"]])
def test_a_stranger_on_a_remembered_port_receives_nothing_secret_from_the_command(
    command: list[str], stopped: Remembered, strangers: list[Stranger]
) -> None:
    done = periplus(stopped.home, *command)
    assert done.returncode != 0 or command == ["down"]
    assert [stranger.name for stranger in strangers if stranger.received_any(stopped.secrets)] == []
    assert [stranger.name for stranger in strangers if stranger.received_any({"train", "ListRuns"})] == []


def test_no_service_listens_on_a_port(stopped: Remembered) -> None:
    assert all(stopped.settings[name].startswith("unix:") for name in SERVICES)
    assert not set(SERVICES) & set(stopped.ports)


@pytest.fixture(scope="module")
def again(stopped: Remembered, strangers: list[Stranger]) -> Iterator[Stack]:
    """The stack after the next `periplus up`, while the ports of before are taken."""
    with up(stopped.home.path) as running:
        yield running


def test_the_tokens_of_the_last_start_are_refused_after_the_next(stopped: Remembered, again: Stack) -> None:
    assert again.settings["token"] != stopped.settings["token"]
    for name, methods in METHODS.items():
        for method in methods:
            assert status(again.settings[name], stopped.settings["token"], method) == "UNAUTHENTICATED"
            assert status(again.settings[name], again.settings["token"], method) == "INVALID_ARGUMENT"
    assert (stopped.home.secrets / "token").read_text() == again.settings["token"]
    assert (stopped.home.secrets / "argo-token").read_text() not in stopped.secrets


def test_only_the_owner_reaches_the_sockets(stopped: Remembered, again: Stack) -> None:
    for name in SERVICES:
        path = Path(again.settings[name].removeprefix("unix:"))
        assert path.parent == stopped.home.run
        assert (path.parent.stat().st_mode & 0o077, path.stat().st_mode & 0o077) == (0, 0)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_reaches_nothing_of_a_home(again: Stack) -> None:
    inside = [again.home, again.home / "client.json", *(again.home / "run").glob("*.sock")]
    assert len(inside) > len(SERVICES) + 2
    inside.append(again.home / "data/postgres/.s.PGSQL.5432")
    command = [sys.executable, less_rights.__file__, "reached_by_another_user"]
    found = subprocess.run([*command, again.home.parent, *inside], capture_output=True, text=True, check=True)
    assert json.loads(found.stdout) == [str(again.home.parent)]


def test_a_killed_service_is_reached_again_where_it_was(again: Stack) -> None:
    again.kill("lineage")
    deadline = time.monotonic() + 60
    while status(again.settings["lineage"], again.settings["token"]) != "INVALID_ARGUMENT":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert again.periplus("runs").returncode == 0


SERVICES = ("dispatcher", "cache", "snapshotter", "lineage")
METHODS = {
    name: [
        f"/{service.full_name}/{method.name}"
        for service in module.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    ]
    for name, module in zip(SERVICES, (dispatcher_pb2, cache_pb2, snapshotter_pb2, lineage_pb2), strict=True)
}


def periplus(home: Home, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PERIPLUS, *arguments], env=os.environ | {"PERIPLUS_HOME": str(home.path)},
        capture_output=True, text=True, check=False, timeout=60, cwd=Path(__file__).parents[2],
    )  # fmt: skip


def status(address: str, token: str, method: str = "/periplus.lineage.v1.LineageService/ListRuns") -> str:
    """How a call without content ends, whose fields are missing."""
    with grpc.insecure_channel(grpc_target(address)) as channel:
        try:
            channel.unary_unary(method)(b"", metadata=(("authorization", f"Bearer {token}"),), timeout=60)
        except grpc.RpcError as error:
            return error.code().name
    return "OK"
