"""What the doctor finds, and that each problem comes with what fixes it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

from periplus_local.stack import embedded, leftovers, lock, ports
from periplus_local.stack.birth import birth
from periplus_local.stack.doctor import Finding, doctor
from periplus_local.stack.home import Home
from periplus_local.stack.supervisor import Supervisor


def by_subject(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.subject: finding for finding in findings}


def test_a_home_that_is_not_there_is_left_alone(tmp_path: Path) -> None:
    found = by_subject(doctor(tmp_path / "home"))
    assert not (tmp_path / "home").exists()
    assert found["python"].ok
    assert found["postgres"].told.startswith("postgres (PostgreSQL) 18")
    assert found["nats-server"].told.startswith("nats-server: v2")
    assert "4." in found["seaweedfs"].told
    assert "GiB free" in found["disk"].told
    assert not found["stack"].ok
    assert found["stack"].fix == "periplus up"


def test_a_secret_that_others_may_read_is_found_with_the_command_that_closes_it(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.create()
    home.secret("token")
    assert by_subject(doctor(home.path))["secrets"].ok
    (home.secrets / "token").chmod(0o640)
    found = by_subject(doctor(home.path))["secrets"]
    assert not found.ok
    subprocess.run(found.fix, shell=True, check=True)
    assert by_subject(doctor(home.path))["secrets"].ok


def test_what_a_killed_supervisor_left_is_found(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.create()
    left = subprocess.Popen([sys.executable, "-I", "-S", "-c", "import time; time.sleep(600)"])
    try:
        leftovers.record(
            home.run / "children.json", [leftovers.Recorded("nats", left.pid, birth(left.pid), 15)]
        )
        found = by_subject(doctor(home.path))["stack"]
        assert not found.ok
        assert f"nats (process {left.pid})" in found.told
        assert found.fix == "periplus down"
    finally:
        left.kill()
        left.wait()


def test_a_part_that_is_not_up_and_a_closed_port_are_found(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.create()
    chosen = ports.assign(home.run / "ports.json", ("mute",))
    mute = subprocess.Popen([sys.executable, "-I", "-S", "-c", "import time; time.sleep(600)"])
    try:
        leftovers.record(
            home.run / "children.json", [leftovers.Recorded("mute", mute.pid, birth(mute.pid), 15)]
        )
        with lock.held(home) as note:
            note({"mute": f"127.0.0.1:{chosen['mute']}", "gone": "127.0.0.1:1"})
            found = by_subject(doctor(home.path))
    finally:
        mute.kill()
        mute.wait()
    assert found["stack"].ok
    assert "the port is closed" in found["mute"].told
    assert found["gone"].told == "no process"
    assert found["gone"].fix == f"less {home.log}/gone.log"


ASK = "import sys; from periplus_local.stack.__main__ import main; sys.exit(main(sys.argv[1:]))"


async def test_clocks_and_parts_of_running_servers_are_well(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.create()
    with lock.held(home) as note:
        chosen = embedded.embedded(home)
        parts = embedded.parts(home, chosen, durable=False)
        note({part.name: part.address for part in parts})
        async with Supervisor(home, parts, lambda _: None):
            asked = await asyncio.to_thread(
                subprocess.run,
                [sys.executable, "-c", ASK, "doctor", "--home", str(home.path)],
                capture_output=True,
                text=True,
                check=False,
            )
    assert asked.returncode == 0, asked.stdout + asked.stderr
    lines = asked.stdout.splitlines()
    assert all(line.startswith("ok") for line in lines)
    assert any("clock of postgres" in line and "ms from ours" in line for line in lines)
    assert any("clock of nats" in line for line in lines)
    assert any(line.split()[1] == "memory" for line in lines)
    assert any(line.split()[1] == "s3" and "MiB" in line for line in lines)
