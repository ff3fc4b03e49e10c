"""A home: its permissions, secrets, ports and lock."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from periplus_local.stack import lock, ports
from periplus_local.stack.home import Home, HomeError, UntrustedHomeError, locate


@pytest.fixture
def home(tmp_path: Path) -> Home:
    created = Home(tmp_path / "home")
    created.create()
    return created


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_home_is_the_argument_or_the_environment_variable_or_periplus_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PERIPLUS_HOME", raising=False)
    assert locate().path == tmp_path / ".periplus"
    monkeypatch.setenv("PERIPLUS_HOME", "elsewhere")
    assert locate().path == tmp_path / "elsewhere"
    assert locate(tmp_path / "given").path == tmp_path / "given"


def test_everything_in_a_home_is_private_and_out_of_git(home: Home) -> None:
    secret = home.secret("token")
    assert len(secret) == 32
    assert home.secret("token") == secret
    assert mode(home.secrets / "token") == 0o600
    assert {mode(path) for path in (home.path, home.data, home.run, home.log, home.secrets)} == {0o700}
    assert (home.path / ".gitignore").read_text() == "*\n"


def test_a_home_that_others_could_read_is_refused_as_it_is(home: Home) -> None:
    home.secrets.chmod(0o755)
    with pytest.raises(UntrustedHomeError, match=r"secrets is open to others \(mode 0755\)"):
        home.create()
    assert mode(home.secrets) == 0o755


def test_a_home_that_can_not_be_made_says_how_to_choose_another(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HomeError, match="PERIPLUS_HOME"):
        Home(tmp_path / "file" / "home").create()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a directory away")
def test_a_home_of_another_user_is_refused(home: Home) -> None:
    os.chown(home.path, 65534, 65534)
    with pytest.raises(HomeError, match="belongs to user 65534"):
        home.create()


def test_ports_are_assigned_again_unless_another_process_has_bound_them(home: Home) -> None:
    path = home.run / "ports.json"
    first = ports.assign(path, ("a", "b"))
    assert ports.assign(path, ("a", "b")) == first
    with socket.create_server((ports.LOOPBACK, first["a"])):
        again = ports.assign(path, ("a", "b"))
    assert again["a"] != first["a"]
    assert again["b"] == first["b"]
    assert ports.recorded(path) == again


def test_a_port_lies_above_another_by_the_requested_distance(home: Home) -> None:
    path = home.run / "ports.json"
    first = ports.assign(path, ("low", "high"), above={"high": ("low", 10_000)})
    assert first["high"] == first["low"] + 10_000
    with socket.create_server((ports.LOOPBACK, first["high"])):
        again = ports.assign(path, ("low", "high"), above={"high": ("low", 10_000)})
    assert again["low"] != first["low"]
    assert again["high"] == again["low"] + 10_000


def test_a_damaged_file_of_ports_is_replaced(home: Home) -> None:
    path = home.run / "ports.json"
    for damage in ("", "[]", '{"a": "x"}', "{"):
        path.write_text(damage)
        assert ports.assign(path, ("a",))["a"] > 0


HOLD = """
import sys
from pathlib import Path
from periplus_local.stack import lock
from periplus_local.stack.home import Home
with lock.held(Home(Path(sys.argv[1]))) as publish:
    publish({"cache": "127.0.0.1:4711"})
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_supervisor_is_refused_and_a_killed_one_holds_nothing(home: Home) -> None:
    first = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(home.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert first.stdout
        assert first.stdout.readline() == "held\n"
        with pytest.raises(lock.HeldError) as refused, lock.held(home):
            pass
        message = str(refused.value)
        assert f"process {first.pid} since 20" in message
        assert "cache 127.0.0.1:4711" in message
        assert "periplus down" in message
        held = lock.holder(home)
        assert held
        assert held.pid == first.pid
    finally:
        first.kill()
        first.wait()
    assert lock.holder(home) is None
    with lock.held(home):
        assert lock.is_held(home)
    assert not lock.is_held(home)


def test_ports_lie_below_those_of_outgoing_connections_and_none_is_assigned_twice(
    tmp_path: Path,
) -> None:
    first = ports.assign(tmp_path / "ports.json", ["a", "b", "b-grpc"], above={"b-grpc": ("b", 10_000)})
    second = ports.assign(tmp_path / "ports.json", [f"c{number}" for number in range(50)])
    assert first["b-grpc"] == first["b"] + 10_000
    assert max(first.values()) < 32_768
    assert max(second.values()) < 32_768
    assert not set(first.values()) & set(second.values())
