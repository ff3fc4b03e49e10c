"""Nothing of the stack answers somebody who shows no secret."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Iterable
from pathlib import Path

import nats
import psutil
import pytest
from nats.errors import Error as NatsError

from periplus_local.stack import embedded as servers
from periplus_local.stack.exposure import Listener, answers, listeners
from periplus_local.stack.home import Home
from periplus_local.stack.supervisor import Supervisor


async def all_ten_and_two(pids: Iterable[int]) -> list[Listener]:
    """The store opens its administration a second after it serves; wait for that, but not forever."""
    wanted = list(pids)
    for _ in range(200):
        if len(found := listeners(wanted)) >= 12:
            break
        await asyncio.sleep(0.05)
    return found


async def test_every_port_of_the_embedded_servers_is_on_loopback_and_asks_for_a_secret(
    tmp_path: Path,
) -> None:
    home = Home(tmp_path / "home")
    home.create()
    chosen = servers.embedded(home)
    parts = servers.parts(home, chosen, durable=False)
    async with Supervisor(home, parts, lambda _: None) as supervisor:
        pids = {name: child.pid for name, child in supervisor.children.items()}
        found = await all_ten_and_two(pids.values())
        assert {listener.host for listener in found} == {"127.0.0.1"}
        expected = {chosen.nats.port, chosen.postgres.port, *chosen.s3.ports.values()}
        assert {listener.port for listener in found} == expected
        open_to_all = [answer for listener in found for answer in answers(listener)]
        assert open_to_all == []
        with pytest.raises(NatsError, match="Authorization"):
            await nats.connect(f"nats://127.0.0.1:{chosen.nats.port}", allow_reconnect=False)
        for socket in parts[0].temporary:
            assert stat.S_IMODE(socket.stat().st_mode) & 0o077 == 0
        assert "-secret" not in " ".join(psutil.Process(pids["s3"]).cmdline())
        secrets = [file.read_text() for file in home.secrets.iterdir()]
        for pid in pids.values():
            shown = " ".join(psutil.Process(pid).cmdline())
            assert not [secret for secret in secrets if secret in shown]
        if os.geteuid() == 0:
            assert psutil.Process(pids["postgres"]).uids().effective != 0
    assert not any(socket.exists() for socket in parts[0].temporary)
    others = [path for path in home.path.rglob("*") if stat.S_IMODE(path.stat().st_mode) & 0o022]
    assert others == []
    assert stat.S_IMODE(home.path.stat().st_mode) == 0o700
