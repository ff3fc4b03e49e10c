"""The embedded servers lose no acknowledged data, however they end."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nats
import psutil
import pytest
from minio import Minio
from urllib3 import PoolManager

from periplus_common import tls
from periplus_common.postgres import connect
from periplus_local.stack import embedded as servers
from periplus_local.stack.home import Home
from periplus_local.stack.process import ProcessState, StateChange
from periplus_local.stack.supervisor import Supervisor

SUBJECT = "periplus.cache.v1.EntryRecorded.p.r"


async def write(chosen: servers.Embedded) -> None:
    connection = await connect(chosen.postgres.dsn("cache"))
    await connection.execute("CREATE TABLE kept (id int); INSERT INTO kept VALUES (7)")
    await connection.close()
    bus = await nats.connect(chosen.nats.url, **tls.nats_options(chosen.nats.url, chosen.nats.ca_file))
    await bus.jetstream().publish(SUBJECT, b"kept", headers={"Nats-Msg-Id": "kept"})
    await bus.close()
    store(chosen).put_object(chosen.s3.bucket.name, "kept", io.BytesIO(b"kept"), 4)


async def check(chosen: servers.Embedded) -> None:
    connection = await connect(chosen.postgres.dsn("cache"))
    assert await connection.fetchval("SELECT id FROM kept") == 7
    await connection.close()
    bus = await nats.connect(chosen.nats.url, **tls.nats_options(chosen.nats.url, chosen.nats.ca_file))
    repeated = await bus.jetstream().publish(SUBJECT, b"kept", headers={"Nats-Msg-Id": "kept"})
    assert (repeated.seq, repeated.duplicate) == (1, True)
    await bus.close()
    assert store(chosen).get_object(chosen.s3.bucket.name, "kept").data == b"kept"


def store(chosen: servers.Embedded) -> Minio:
    pool = PoolManager(ca_certs=chosen.s3.bucket.ca_file)
    return Minio(chosen.s3.endpoint, chosen.s3.access_key, chosen.s3.secret_key, http_client=pool)


async def test_a_killed_server_is_restarted_with_its_data(tmp_path: Path) -> None:
    home = Home(tmp_path / f'a home, "long" & ünusual {"x" * 90}')
    home.create()
    chosen = servers.embedded(home)
    changes: list[StateChange] = []
    async with Supervisor(home, servers.specs(home, chosen), changes.append) as supervisor:
        await write(chosen)
        for child in supervisor.running.values():
            os.kill(child.pid, signal.SIGKILL)
        end = time.monotonic() + 60
        while sum(change.state is ProcessState.READY for change in changes) < 6:
            assert time.monotonic() < end, [change.line() for change in changes]
            await asyncio.sleep(0.05)
        await check(chosen)
    async with Supervisor(home, servers.specs(home, servers.embedded(home)), changes.append):
        await check(chosen)


async def test_postgres_starts_although_its_pid_file_names_another_process(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.create()
    chosen = servers.embedded(home)
    spec = next(p for p in servers.specs(home, chosen, durable=False) if p.name == "postgres")
    async with Supervisor(home, [spec], lambda _: None):
        pass
    # A process of the same user, as after a reboot: only then PostgreSQL takes it for a running server.
    other = subprocess.Popen(["/bin/sleep", "600"], user=spec.user.uid if spec.user else None, cwd="/")  # noqa: ASYNC220
    try:
        pid_file = home.data / "postgres" / "postmaster.pid"
        pid_file.write_text(f"{other.pid}\n{pid_file.parent}\n0\n5432\n\n127.0.0.1\n0 0\nready\n")
        async with Supervisor(home, [spec], lambda _: None):
            assert other.poll() is None
    finally:
        other.kill()
        other.wait()


START = """
import signal, subprocess, time
from periplus_local.stack.running_process import tied_to_this_process
print(subprocess.Popen(tied_to_this_process(["/bin/sleep", "600"], signal.SIGTERM)).pid, flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(
    sys.platform != "linux", reason="elsewhere the next start ends the processes of a killed supervisor"
)
def test_a_program_ends_when_the_process_that_started_it_is_killed(tmp_path: Path) -> None:
    starter = subprocess.Popen([sys.executable, "-c", START], stdout=subprocess.PIPE, text=True, cwd=tmp_path)
    assert starter.stdout is not None
    with starter.stdout:
        program = psutil.Process(int(starter.stdout.readline()))
    while "sleep" not in program.name():
        time.sleep(0.01)
    starter.kill()
    starter.wait()
    program.wait(20)
