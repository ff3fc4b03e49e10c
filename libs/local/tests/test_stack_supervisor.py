"""The supervisor, with small real processes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from periplus_local.boot import start_time
from periplus_local.stack import orphans
from periplus_local.stack.home import Home
from periplus_local.stack.process import (
    NotReadyError,
    ProcessFailedError,
    ProcessSpec,
    ProcessState,
    StateChange,
)
from periplus_local.stack.supervisor import Supervisor

SLEEP = "import time; time.sleep(600)"
SAY = f"import pathlib, sys; pathlib.Path(sys.argv[1]).touch(); {SLEEP}"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    created = Home(tmp_path / "home")
    created.create()
    return created


def spec(home: Home, name: str, code: str, **more: object) -> ProcessSpec:
    """A process that runs a line of Python and is ready when its file exists."""
    file = home.run / f"{name}.ready"

    async def ready() -> None:
        if not file.exists():
            raise NotReadyError("no file yet")

    command = (sys.executable, "-I", "-S", "-c", code, str(file))
    settings: dict[str, object] = {
        "ready": ready,
        "start_timeout_seconds": 20.0,
        "stop_timeout_seconds": 5.0,
    } | more
    return ProcessSpec(name=name, command=command, directory=home.run, **settings)  # type: ignore[arg-type]


def names(changes: list[StateChange], state: ProcessState) -> list[str]:
    return [change.process for change in changes if change.state is state]


async def until(true: object, limit: float = 20.0) -> None:
    end = time.monotonic() + limit
    while not true():  # type: ignore[operator]
        assert time.monotonic() < end, "waited too long"
        await asyncio.sleep(0.02)


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


async def test_processes_start_after_what_they_depend_on_and_stop_before_it(home: Home) -> None:
    changes: list[StateChange] = []
    specs = [
        spec(home, "roof", SAY, depends_on=("walls",)),
        spec(home, "walls", SAY, depends_on=("ground",)),
        spec(home, "ground", SAY),
    ]
    async with Supervisor(home, specs, changes.append) as supervisor:
        assert names(changes, ProcessState.READY) == ["ground", "walls", "roof"]
        pids = [child.pid for child in supervisor.running.values()]
    assert names(changes, ProcessState.STOPPED) == ["roof", "walls", "ground"]
    assert all(gone(pid) for pid in pids)


async def test_processes_that_depend_on_each_other_are_refused(home: Home) -> None:
    specs = [spec(home, "egg", SAY, depends_on=("hen",)), spec(home, "hen", SAY, depends_on=("egg",))]
    with pytest.raises(ValueError, match=r"\['egg', 'hen'\]"):
        async with Supervisor(home, specs, lambda _: None):
            pass


async def test_a_job_is_ready_when_it_has_exited_with_0(home: Home) -> None:
    changes: list[StateChange] = []
    ended = "import sys, pathlib; pathlib.Path(sys.argv[1]).touch()"
    specs = [spec(home, "job", ended, is_job=True), spec(home, "user", SAY, depends_on=("job",))]
    async with Supervisor(home, specs, changes.append) as supervisor:
        assert names(changes, ProcessState.READY) == ["job", "user"]
        assert list(supervisor.running) == ["user"]
    assert names(changes, ProcessState.STOPPED) == ["user"]
    assert not names(changes, ProcessState.RESTARTING)


async def test_a_process_that_can_not_start_says_why_and_the_others_are_stopped(home: Home) -> None:
    changes: list[StateChange] = []
    specs = [spec(home, "well", SAY), spec(home, "bad", "raise SystemExit('no bread')", depends_on=("well",))]
    with pytest.raises(ProcessFailedError) as failure:
        async with Supervisor(home, specs, changes.append):
            pass
    assert "bad ended with exit code 1" in str(failure.value)
    assert "no bread" in str(failure.value)
    assert str(home.log / "bad.log") in str(failure.value)
    assert names(changes, ProcessState.STOPPED) == ["well"]


async def test_a_process_that_does_not_become_ready_fails_with_the_last_reason(home: Home) -> None:
    with pytest.raises(ProcessFailedError, match="not ready after 0 s: no file yet"):
        async with Supervisor(home, [spec(home, "mute", SLEEP, start_timeout_seconds=0.4)], lambda _: None):
            pass
    assert orphans.read_records(home.run / "processes.json") == []


async def test_a_process_that_ends_is_restarted_and_that_is_reported(home: Home) -> None:
    changes: list[StateChange] = []
    async with Supervisor(home, [spec(home, "frail", SAY)], changes.append) as supervisor:
        first = supervisor.running["frail"].pid
        os.kill(first, signal.SIGKILL)
        await until(lambda: len(names(changes, ProcessState.READY)) == 2)
        second = supervisor.running["frail"].pid
        assert second != first
        os.kill(second, signal.SIGKILL)
        await until(lambda: len(names(changes, ProcessState.READY)) == 3)
    reasons = [change.reason for change in changes if change.state is ProcessState.RESTARTING]
    assert "was ended by SIGKILL; starting it again in 0.2 s" in reasons[0]
    assert "in 0.5 s" in reasons[1]


async def test_a_process_that_ignores_its_stop_signal_is_killed_with_its_children(home: Home) -> None:
    stubborn = (
        "import os, pathlib, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = os.fork()\n"
        "if child: pathlib.Path(sys.argv[1]).write_text(str(child))\n"
        "time.sleep(600)"
    )
    async with Supervisor(
        home, [spec(home, "stubborn", stubborn, stop_timeout_seconds=0.3)], lambda _: None
    ) as supervisor:
        pid = supervisor.running["stubborn"].pid
        await until((home.run / "stubborn.ready").read_text)
        grandchild = int((home.run / "stubborn.ready").read_text())
        assert not gone(grandchild)
    assert gone(pid)
    await until(lambda: gone(grandchild))


async def test_a_process_has_only_its_own_and_a_few_inherited_variables(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary")
    code = f"import os, json, sys; open(sys.argv[1], 'w').write(json.dumps(dict(os.environ))); {SLEEP}"
    async with Supervisor(home, [spec(home, "looks", code, env={"OWN": "1"})], lambda _: None):
        await until((home.run / "looks.ready").read_text)
        seen = json.loads((home.run / "looks.ready").read_text())
    assert seen["OWN"] == "1"
    assert "AWS_SECRET_ACCESS_KEY" not in seen


SUPERVISE = """
import asyncio, sys
from pathlib import Path
from periplus_local.stack.home import Home
from periplus_local.stack.process import ProcessSpec
from periplus_local.stack.supervisor import Supervisor

async def main():
    home = Home(Path(sys.argv[1]))
    command = (sys.executable, "-I", "-S", "-c", sys.argv[2], str(home.run / "said"))
    async def ready(): pass
    async with Supervisor(home, [ProcessSpec("kept", command, home.run, ready)], lambda c: None) as supervisor:
        print(supervisor.running["kept"].pid, flush=True)
        await asyncio.sleep(600)

asyncio.run(main())
"""


def supervisor_process(home: Home, code: str) -> tuple[subprocess.Popen[str], int]:
    process = subprocess.Popen(
        [sys.executable, "-c", SUPERVISE, str(home.path), code], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    return process, int(process.stdout.readline())


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux signals a process when its parent ends")
async def test_processes_end_with_a_supervisor_that_is_killed(home: Home) -> None:
    process, pid = supervisor_process(home, SAY)
    await until((home.run / "said").exists)
    process.kill()
    process.wait()
    await until(lambda: gone(pid))


async def test_processes_that_outlived_their_supervisor_are_ended(home: Home) -> None:
    deaf = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SAY}"
    process, pid = supervisor_process(home, deaf)
    await until((home.run / "said").exists)
    process.kill()
    process.wait()
    await asyncio.sleep(0.2)
    assert not gone(pid)
    assert orphans.end_orphans(home.run / "processes.json", stop_timeout_seconds=0.3) == ["kept"]
    assert gone(pid)


def test_another_process_with_a_recorded_pid_is_not_ended(home: Home) -> None:
    other = subprocess.Popen([sys.executable, "-I", "-S", "-c", SLEEP])
    try:
        stale = orphans.ProcessRecord("stale", other.pid, start_time(other.pid) + "0", int(signal.SIGTERM))
        orphans.write_records(home.run / "processes.json", [stale])
        assert orphans.end_orphans(home.run / "processes.json") == []
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()
