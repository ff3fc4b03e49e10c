"""The whole stack as a user has it: `up`, `doctor`, killed processes, and `down`."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from unauthenticated import answers, calls_answered

from periplus_common.unix_socket import POSTGRES_SOCKET, grpc_target
from periplus_local.stack import HeldError, detach, doctor, down, lock, orphans, up
from periplus_local.stack.home import Home
from periplus_local.stack.process_info import listeners, process_tree

PROCESSES = {"nats", "postgres", "s3", "argo", "cache", "snapshotter", "lineage", "dispatcher"}
ASK = """
import pathlib, sys
from periplus_local.stack.embedded import embedded
from periplus_local.stack.home import Home
print(embedded(Home(pathlib.Path(sys.argv[1]))).s3.endpoint)
"""
COMMAND = [sys.executable, "-m", "periplus_local.stack"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    stack_home = Home(tmp_path_factory.mktemp("stack") / "home")
    detach(stack_home.path)
    yield stack_home
    down(stack_home.path)


def records(home: Home) -> dict[str, orphans.ProcessRecord]:
    return {record.name: record for record in orphans.read_records(home.run / "processes.json")}


def test_every_process_runs_and_doctor_finds_no_problem(home: Home) -> None:
    assert set(records(home)) == PROCESSES
    assert [finding.line() for finding in doctor(home.path) if not finding.ok] == []


def test_the_settings_of_the_command_line_are_readable_by_their_owner_only(home: Home) -> None:
    settings = json.loads(home.client_settings.read_text())
    assert set(settings) == {
        "dispatcher",
        "cache",
        "snapshotter",
        "lineage",
        "token",
        "project",
        "events",
        "events_ca_file",
        "lock",
    }
    assert settings["project"] == "default"
    assert stat.S_IMODE(home.client_settings.stat().st_mode) == 0o600


def test_a_second_up_names_the_process_that_holds_the_home(home: Home) -> None:
    holder = lock.holder(home)
    assert holder
    with pytest.raises(HeldError, match=f"process {holder.pid} since .*nats 127.0.0.1"):
        up(home.path)
    with pytest.raises(HeldError, match=f"process {holder.pid}"):
        detach(home.path)
    refused = subprocess.run(
        [*COMMAND, "up", "--home", str(home.path)], capture_output=True, text=True, check=False
    )
    assert refused.returncode == 1
    assert f"process {holder.pid}" in refused.stderr
    assert set(records(home)) == PROCESSES


def test_no_port_or_socket_of_the_stack_answers_a_client_without_a_secret(home: Home) -> None:
    holder = lock.holder(home)
    assert holder
    found = listeners([holder.pid])
    assert [listener for listener in found if not listener.is_loopback] == []
    assert len(found) >= 11
    assert [answer for listener in found for answer in answers(listener)] == []
    sockets = [address for address in holder.addresses.values() if address.startswith("unix:")]
    assert len(sockets) == 6
    services = [address for address in sockets if not address.endswith((POSTGRES_SOCKET, "argo.sock"))]
    answered = {call for address in services for call, _ in calls_answered(grpc_target(address))}
    assert answered == set()


def test_no_secret_is_on_a_command_line_or_in_a_log(home: Home) -> None:
    holder = lock.holder(home)
    assert holder
    secrets = [file.read_text() for file in home.secrets.iterdir()]
    shown = [" ".join(process.cmdline()) for process in process_tree(holder.pid)]
    shown += [log.read_text(errors="replace") for log in home.log.iterdir()]
    assert [secret for secret in secrets if any(secret in text for text in shown)] == []


@pytest.mark.parametrize("name", ["cache", "snapshotter", "lineage", "dispatcher", "argo"])
def test_a_killed_service_is_restarted(home: Home, name: str) -> None:
    log = home.log / "stack.log"
    readied = log.read_text().count(f"{name:<20} ready in ")
    os.kill(records(home)[name].pid, signal.SIGKILL)
    limit = time.monotonic() + 60
    while log.read_text().count(f"{name:<20} ready in ") == readied:
        assert time.monotonic() < limit, (home.log / f"{name}.log").read_text()[-2000:]
        time.sleep(0.05)
    assert f"{name:<20} restarting: was ended by SIGKILL" in log.read_text()


def test_down_stops_everything_and_ctrl_c_does_so_in_order(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    assert down(home.path) is None
    with subprocess.Popen(
        [*COMMAND, "up", "--home", str(home.path)], stdout=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout
        lines: list[str] = []
        for line in running.stdout:
            lines.append(line)
            if sum(" ready in " in said for said in lines) == len(PROCESSES) + 4:
                break
        pids = [child.pid for child in records(home).values()]
        assert len(pids) == len(PROCESSES), lines
        running.send_signal(signal.SIGINT)
        rest = running.stdout.read()
        assert running.wait() == 0
    stopped = [line.split()[0] for line in rest.splitlines() if " stopped in " in line]
    assert set(stopped[:2]) == {"dispatcher", "lineage"}
    assert set(stopped[2:5]) == {"argo", "cache", "snapshotter"}
    assert set(stopped[5:]) == {"nats", "postgres", "s3"}
    assert not any(psutil.pid_exists(pid) for pid in pids)
    assert not lock.is_held(home)


def test_embedded_gives_the_servers_of_a_stack_that_another_process_runs(home: Home) -> None:
    noted = (home.run / "ports.json").read_text()
    done = subprocess.run(
        [sys.executable, "-c", ASK, str(home.path)], capture_output=True, text=True, check=True
    )
    holder = lock.holder(home)
    assert holder
    assert done.stdout.strip() == holder.addresses["s3"]
    assert (home.run / "ports.json").read_text() == noted
