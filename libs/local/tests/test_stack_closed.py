"""No port of the stack answers a client without a secret."""

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
from unauthenticated import answers

from periplus_common import tls
from periplus_local.stack import embedded as servers
from periplus_local.stack.home import Home
from periplus_local.stack.process_info import Listener, listeners
from periplus_local.stack.supervisor import Supervisor


async def wait_for_listeners(pids: Iterable[int]) -> list[Listener]:
    """The store opens its admin port a second after it is ready; wait for that, at most for 1,200 polls."""
    wanted = list(pids)
    for _ in range(1200):
        if len(found := listeners(wanted)) >= 11:
            break
        await asyncio.sleep(0.05)
    return found


async def test_every_port_of_the_embedded_servers_is_on_loopback_and_asks_for_a_secret(
    tmp_path: Path,
) -> None:
    home = Home(tmp_path / "home")
    home.create()
    chosen = servers.embedded(home)
    specs = servers.specs(home, chosen, durable=False)
    async with Supervisor(home, specs, lambda _: None) as supervisor:
        pids = {name: child.pid for name, child in supervisor.running.items()}
        found = await wait_for_listeners(pids.values())
        assert {listener.host for listener in found} == {"127.0.0.1"}
        expected = {chosen.nats.port, *chosen.s3.ports.values()}
        assert {listener.port for listener in found} == expected
        not_refused = [answer for listener in found for answer in answers(listener)]
        assert not_refused == []
        url = f"tls://127.0.0.1:{chosen.nats.port}"
        with pytest.raises(NatsError, match="Authorization"):
            await nats.connect(url, allow_reconnect=False, **tls.nats_options(url, chosen.nats.ca_file))
        for socket in specs[0].temporary:
            assert stat.S_IMODE(socket.stat().st_mode) & 0o077 == 0
        assert "-secret" not in " ".join(psutil.Process(pids["s3"]).cmdline())
        secrets = [file.read_text() for file in home.secrets.iterdir()]
        for pid in pids.values():
            shown = " ".join(psutil.Process(pid).cmdline())
            assert not [secret for secret in secrets if secret in shown]
        if os.geteuid() == 0:
            assert psutil.Process(pids["postgres"]).uids().effective != 0
    assert not any(socket.exists() for socket in specs[0].temporary)
    others = [path for path in home.path.rglob("*") if stat.S_IMODE(path.stat().st_mode) & 0o022]
    assert others == []
    assert stat.S_IMODE(home.path.stat().st_mode) == 0o700
