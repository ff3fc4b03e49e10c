"""The settings of clients are believed only while the process that wrote them holds the home: a planted file receives nothing."""

import fcntl
import json
import os
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from periplus.sdk.client import NotConnectedError, connection
from periplus_local.stack import lock
from periplus_local.stack.home import Home

BIN = Path(sys.executable).parent
SERVICES = ("dispatcher", "cache", "snapshotter", "lineage")
COMMANDS = (
    ("runs",),
    ("watch", "@latest"),
    ("run", "hello.yaml"),
    ("plan", "hello.yaml"),
    ("cache", "ls"),
    ("lineage", "up", "@latest"),
)
HELLO = """
apiVersion: argoproj.io/v1alpha1
kind: Workflow
metadata: {generateName: hello-}
spec:
  entrypoint: main
  templates: [{name: main, container: {image: any, command: [echo], args: [hello]}}]
"""


class Trap:
    """A server that accepts connections, and keeps what it receives."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.received: list[bytes] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            connected, _ = self._listener.accept()
            with connected:
                self.received.append(connected.recv(1000))


@pytest.fixture
def trap() -> Trap:
    return Trap()


def settings(trap: Trap, mark: str) -> str:
    return json.dumps({**dict.fromkeys(SERVICES, trap.address), "token": "planted", "lock": mark})


def plant(home: Path, text: str, mark: str = "mark", mode: int = 0o700) -> None:
    """A home as an attacker would make it: it says that it is held, by the mark that its settings have."""
    for folder in (home, home / "run"):
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(mode)
    for file, content in (("client.json", text), ("run/lock", mark)):
        (home / file).write_text(content)
        (home / file).chmod(mode & 0o666)


@contextmanager
def locked(file: Path) -> Iterator[None]:
    with file.open() as opened:
        fcntl.flock(opened, fcntl.LOCK_EX)
        yield


def refuse(home: Path, trap: Trap, match: str) -> None:
    with pytest.raises(NotConnectedError, match=match) as refused:
        connection({"PERIPLUS_HOME": str(home)})
    assert refused.value.fix == "periplus up --detach"
    assert trap.received == []


def test_no_command_sends_anything_to_a_planted_address(tmp_path: Path, trap: Trap) -> None:
    plant(tmp_path / ".periplus", settings(trap, "mark"))
    (tmp_path / "hello.yaml").write_text(HELLO)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PERIPLUS_")}
    for command in COMMANDS:
        said = subprocess.run(
            [BIN / "periplus", *command],
            cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert said.returncode == 3, said
        assert "fix:   periplus up --detach" in said.stderr
    assert trap.received == []


def test_settings_whose_lock_nobody_holds_are_not_believed(tmp_path: Path, trap: Trap) -> None:
    plant(tmp_path / "home", settings(trap, "mark"))
    refuse(tmp_path / "home", trap, "no stack runs here")


def test_settings_are_not_believed_while_the_holder_has_not_said_who_it_is(
    tmp_path: Path, trap: Trap
) -> None:
    """It has the lock for a moment before it removes the settings that it finds."""
    plant(tmp_path / "home", settings(trap, ""), mark="")
    with locked(tmp_path / "home/run/lock"):
        refuse(tmp_path / "home", trap, "was not written by the stack that runs here")


def test_settings_that_another_process_than_the_holder_wrote_are_not_believed(
    tmp_path: Path, trap: Trap
) -> None:
    home = Home(tmp_path / "home")
    home.create()
    with lock.held(home):
        refuse(home.path, trap, "no stack was started here")
        home.client_settings.touch(mode=0o600)
        for mark in ("", "mark", str(uuid.uuid4())):
            home.client_settings.write_text(settings(trap, mark))
            refuse(home.path, trap, "was not written by the stack that runs here")
        lock.publish_to_clients(home, json.loads(settings(trap, "")))
        assert connection({"PERIPLUS_HOME": str(home.path)}).token == "planted"
    assert not home.client_settings.exists()


def test_settings_of_a_killed_stack_are_not_believed_by_the_next_ones_clients(
    tmp_path: Path, trap: Trap
) -> None:
    home = Home(tmp_path / "home")
    home.create()
    with lock.held(home):
        lock.publish_to_clients(home, json.loads(settings(trap, "")))
        left = {path: path.read_text() for path in (home.client_settings, home.run / "lock")}
    for path, text in left.items():  # as `kill -9` leaves them
        path.touch(mode=0o600)
        path.write_text(text)
    refuse(home.path, trap, "no stack runs here")
    with lock.held(home):
        refuse(home.path, trap, "no stack was started here")


def test_settings_in_a_home_that_is_open_to_others_are_not_believed(tmp_path: Path, trap: Trap) -> None:
    for name, path in (("home", "."), ("run", "run"), ("file", "client.json"), ("lock", "run/lock")):
        home = tmp_path / name
        plant(home, settings(trap, "mark"))
        (home / path).chmod(0o750)
        with locked(home / "run/lock"):
            refuse(home, trap, r"is open to others \(mode 0750\)")


def link(home: Path, elsewhere: Path, name: str) -> None:
    (home / name).rename(elsewhere / Path(name).name)
    (home / name).symlink_to(elsewhere / Path(name).name)


def whole(home: Path, elsewhere: Path) -> None:
    home.rename(elsewhere / "home")
    home.symlink_to(elsewhere / "home")


LINKS: dict[str, Callable[[Path, Path], None]] = {
    "home": whole,
    **{name: lambda home, elsewhere, name=name: link(home, elsewhere, name) for name in ("run", "run/lock", "client.json")},
}  # fmt: skip


@pytest.mark.parametrize("name", LINKS)
def test_settings_behind_a_link_are_not_believed(tmp_path: Path, trap: Trap, name: str) -> None:
    home = tmp_path / "home"
    plant(home, settings(trap, "mark"))
    (tmp_path / "elsewhere").mkdir()
    LINKS[name](home, tmp_path / "elsewhere")
    with ExitStack() as held:
        held.enter_context(locked(home / "run/lock"))
        refuse(home, trap, "cannot be read")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file away")
def test_settings_of_another_user_are_not_believed(tmp_path: Path, trap: Trap) -> None:
    for name, path in (("home", "."), ("run", "run"), ("file", "client.json"), ("lock", "run/lock")):
        home = tmp_path / name
        plant(home, settings(trap, "mark"))
        os.chown(home / path, 65534, 65534)
        with locked(home / "run/lock"):
            refuse(home, trap, "belongs to user 65534")
