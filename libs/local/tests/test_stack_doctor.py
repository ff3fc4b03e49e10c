"""What doctor finds, and the command that fixes each problem."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

from periplus_local.boot import start_time
from periplus_local.stack import embedded, lock, orphans, ports
from periplus_local.stack.doctor import Finding, doctor
from periplus_local.stack.home import Home
from periplus_local.stack.supervisor import Supervisor


def by_subject(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.subject: finding for finding in findings}


def test_doctor_does_not_create_a_home(tmp_path: Path) -> None:
    found = by_subject(doctor(tmp_path / "home"))
    assert not (tmp_path / "home").exists()
    assert found["python"].ok
    assert found["postgres"].detail.startswith("postgres (PostgreSQL) 18")
    assert found["nats-server"].detail.startswith("nats-server: v2")
    assert "4." in found["seaweedfs"].detail
    assert "GiB free" in found["disk"].detail
    assert not found["stack"].ok
    assert found["stack"].fix == "periplus up"


def test_a_secret_that_others_may_read_is_found_with_the_command_that_makes_it_private(
    tmp_path: Path,
) -> None:
    home = Home(tmp_path / "home")
    home.create()
    home.secret("token")
    assert by_subject(doctor(home.path))["secrets"].ok
    (home.secrets / "token").chmod(0o640)
    found = by_subject(doctor(home.path))["secrets"]
    assert not found.ok
    subprocess.run(found.fix, shell=True, check=True)
    assert by_subject(doctor(home.path))["secrets"].ok


def test_processes_that_outlived_their_supervisor_are_found(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.create()
    left = subprocess.Popen([sys.executable, "-I", "-S", "-c", "import time; time.sleep(600)"])
    try:
        orphans.write_records(
            home.run / "processes.json", [orphans.ProcessRecord("nats", left.pid, start_time(left.pid), 15)]
        )
        found = by_subject(doctor(home.path))["stack"]
        assert not found.ok
        assert f"nats (process {left.pid})" in found.detail
        assert found.fix == "periplus down"
    finally:
        left.kill()
        left.wait()


def test_a_process_that_does_not_run_and_a_closed_port_are_found(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.create()
    chosen = ports.assign(home.run / "ports.json", ("mute",))
    mute = subprocess.Popen([sys.executable, "-I", "-S", "-c", "import time; time.sleep(600)"])
    try:
        orphans.write_records(
            home.run / "processes.json", [orphans.ProcessRecord("mute", mute.pid, start_time(mute.pid), 15)]
        )
        with lock.held(home) as publish:
            publish({"mute": f"127.0.0.1:{chosen['mute']}", "gone": "127.0.0.1:1"})
            found = by_subject(doctor(home.path))
    finally:
        mute.kill()
        mute.wait()
    assert found["stack"].ok
    assert "nothing listens there" in found["mute"].detail
    assert found["gone"].detail == "no process"
    assert found["gone"].fix == f"less {home.log}/gone.log"


ASK = "import sys; from periplus_local.stack.__main__ import main; sys.exit(main(sys.argv[1:]))"


async def test_doctor_finds_no_problem_with_running_servers(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.create()
    with lock.held(home) as publish:
        chosen = embedded.embedded(home)
        specs = embedded.specs(home, chosen, durable=False)
        publish({spec.name: spec.address for spec in specs})
        async with Supervisor(home, specs, lambda _: None):
            done = await asyncio.to_thread(
                subprocess.run,
                [sys.executable, "-c", ASK, "doctor", "--home", str(home.path)],
                capture_output=True,
                text=True,
                check=False,
            )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert all(line.startswith("ok") for line in lines)
    assert any("clock of postgres" in line and "ms from the clock of this process" in line for line in lines)
    assert any("clock of nats" in line for line in lines)
    assert any(line.split()[1] == "memory" for line in lines)
    assert any(line.split()[1] == "s3" and "MiB" in line for line in lines)
