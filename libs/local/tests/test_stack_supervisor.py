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

from periplus_local.stack import leftovers
from periplus_local.stack.birth import birth
from periplus_local.stack.home import Home
from periplus_local.stack.part import Change, NotReadyError, Part, PartFailedError, State
from periplus_local.stack.supervisor import Supervisor

SLEEP = "import time; time.sleep(600)"
SAY = f"import pathlib, sys; pathlib.Path(sys.argv[1]).touch(); {SLEEP}"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path / "home")
    made.create()
    return made


def part(home: Home, name: str, code: str, **more: object) -> Part:
    """A part that runs a line of Python and is ready when its file is there."""
    file = home.run / f"{name}.ready"

    async def ready() -> None:
        if not file.exists():
            raise NotReadyError("no file yet")

    command = (sys.executable, "-I", "-S", "-c", code, str(file))
    settings: dict[str, object] = {"ready": ready, "timeout": 20.0, "grace": 5.0} | more
    return Part(name=name, command=command, directory=home.run, **settings)  # type: ignore[arg-type]


def told(changes: list[Change], state: State) -> list[str]:
    return [change.part for change in changes if change.state is state]


async def until(true: object, limit: float = 20.0) -> None:
    end = time.monotonic() + limit
    while not true():  # type: ignore[operator]
        assert time.monotonic() < end, "waited too long"
        await asyncio.sleep(0.02)


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


async def test_parts_start_after_what_they_wait_for_and_stop_before_it(home: Home) -> None:
    changes: list[Change] = []
    parts = [
        part(home, "roof", SAY, after=("walls",)),
        part(home, "walls", SAY, after=("ground",)),
        part(home, "ground", SAY),
    ]
    async with Supervisor(home, parts, changes.append) as supervisor:
        assert told(changes, State.READY) == ["ground", "walls", "roof"]
        pids = [child.pid for child in supervisor.children.values()]
    assert told(changes, State.STOPPED) == ["roof", "walls", "ground"]
    assert all(gone(pid) for pid in pids)


async def test_parts_that_wait_for_each_other_are_refused(home: Home) -> None:
    parts = [part(home, "egg", SAY, after=("hen",)), part(home, "hen", SAY, after=("egg",))]
    with pytest.raises(ValueError, match=r"\['egg', 'hen'\]"):
        async with Supervisor(home, parts, lambda _: None):
            pass


async def test_a_job_is_ready_when_it_has_ended_well(home: Home) -> None:
    changes: list[Change] = []
    ended = "import sys, pathlib; pathlib.Path(sys.argv[1]).touch()"
    parts = [part(home, "job", ended, once=True), part(home, "user", SAY, after=("job",))]
    async with Supervisor(home, parts, changes.append) as supervisor:
        assert told(changes, State.READY) == ["job", "user"]
        assert list(supervisor.children) == ["user"]
    assert told(changes, State.STOPPED) == ["user"]
    assert not told(changes, State.RESTARTING)


async def test_a_part_that_cannot_start_says_why_and_stops_the_others(home: Home) -> None:
    changes: list[Change] = []
    parts = [part(home, "well", SAY), part(home, "bad", "raise SystemExit('no bread')", after=("well",))]
    with pytest.raises(PartFailedError) as failure:
        async with Supervisor(home, parts, changes.append):
            pass
    assert "bad ended with exit code 1" in str(failure.value)
    assert "no bread" in str(failure.value)
    assert str(home.log / "bad.log") in str(failure.value)
    assert told(changes, State.STOPPED) == ["well"]


async def test_a_part_that_never_answers_is_given_up_with_what_it_lacks(home: Home) -> None:
    with pytest.raises(PartFailedError, match="not ready after 0 s: no file yet"):
        async with Supervisor(home, [part(home, "mute", SLEEP, timeout=0.4)], lambda _: None):
            pass
    assert leftovers.recorded(home.run / "children.json") == []


async def test_a_part_that_dies_is_started_again_and_said_so(home: Home) -> None:
    changes: list[Change] = []
    async with Supervisor(home, [part(home, "frail", SAY)], changes.append) as supervisor:
        first = supervisor.children["frail"].pid
        os.kill(first, signal.SIGKILL)
        await until(lambda: len(told(changes, State.READY)) == 2)
        second = supervisor.children["frail"].pid
        assert second != first
        os.kill(second, signal.SIGKILL)
        await until(lambda: len(told(changes, State.READY)) == 3)
    said = [change.reason for change in changes if change.state is State.RESTARTING]
    assert "was ended by SIGKILL; starting it again in 0.2 s" in said[0]
    assert "in 0.5 s" in said[1]


async def test_a_part_that_ignores_its_signal_is_killed_with_its_children(home: Home) -> None:
    stubborn = (
        "import os, pathlib, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = os.fork()\n"
        "if child: pathlib.Path(sys.argv[1]).write_text(str(child))\n"
        "time.sleep(600)"
    )
    async with Supervisor(home, [part(home, "stubborn", stubborn, grace=0.3)], lambda _: None) as supervisor:
        pid = supervisor.children["stubborn"].pid
        await until((home.run / "stubborn.ready").read_text)
        grandchild = int((home.run / "stubborn.ready").read_text())
        assert not gone(grandchild)
    assert gone(pid)
    await until(lambda: gone(grandchild))


async def test_a_part_sees_only_its_own_and_a_few_inherited_variables(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary")
    code = f"import os, json, sys; open(sys.argv[1], 'w').write(json.dumps(dict(os.environ))); {SLEEP}"
    async with Supervisor(home, [part(home, "looks", code, env={"OWN": "1"})], lambda _: None):
        await until((home.run / "looks.ready").read_text)
        seen = json.loads((home.run / "looks.ready").read_text())
    assert seen["OWN"] == "1"
    assert "AWS_SECRET_ACCESS_KEY" not in seen


SUPERVISE = """
import asyncio, sys
from pathlib import Path
from periplus_local.stack.home import Home
from periplus_local.stack.part import Part
from periplus_local.stack.supervisor import Supervisor

async def main():
    home = Home(Path(sys.argv[1]))
    command = (sys.executable, "-I", "-S", "-c", sys.argv[2], str(home.run / "said"))
    async def ready(): pass
    async with Supervisor(home, [Part("kept", command, home.run, ready)], lambda c: None) as supervisor:
        print(supervisor.children["kept"].pid, flush=True)
        await asyncio.sleep(600)

asyncio.run(main())
"""


def supervisor_process(home: Home, code: str) -> tuple[subprocess.Popen[str], int]:
    process = subprocess.Popen(
        [sys.executable, "-c", SUPERVISE, str(home.path), code], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    return process, int(process.stdout.readline())


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of its parent's death")
async def test_parts_die_with_a_supervisor_that_is_killed(home: Home) -> None:
    process, pid = supervisor_process(home, SAY)
    await until((home.run / "said").exists)
    process.kill()
    process.wait()
    await until(lambda: gone(pid))


async def test_the_next_supervisor_ends_what_a_killed_one_left(home: Home) -> None:
    deaf = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SAY}"
    process, pid = supervisor_process(home, deaf)
    await until((home.run / "said").exists)
    process.kill()
    process.wait()
    await asyncio.sleep(0.2)
    assert not gone(pid)
    assert leftovers.clean(home.run / "children.json", grace=0.3) == ["kept"]
    assert gone(pid)


def test_a_pid_that_now_belongs_to_somebody_else_is_left_alone(home: Home) -> None:
    other = subprocess.Popen([sys.executable, "-I", "-S", "-c", SLEEP])
    try:
        stale = leftovers.Recorded("stale", other.pid, birth(other.pid) + "0", int(signal.SIGTERM))
        leftovers.record(home.run / "children.json", [stale])
        assert leftovers.clean(home.run / "children.json") == []
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()
