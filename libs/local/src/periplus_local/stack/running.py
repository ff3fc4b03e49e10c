"""The whole stack of a home, run in the foreground: locked, started, watched, stopped."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from periplus_local.stack import embedded, leftovers, lock, services
from periplus_local.stack.child import kill_group
from periplus_local.stack.home import locate, write_private_json
from periplus_local.stack.part import Change, OnChange, Part, State
from periplus_local.stack.supervisor import Supervisor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from periplus_local.stack.cluster import Cluster
    from periplus_local.stack.home import Home

Opened = TypeVar("Opened")


@dataclass(frozen=True)
class Running:
    """A stack whose every part is ready."""

    home: Home
    supervisor: Supervisor
    addresses: Mapping[str, str]
    """host:port by the part's name."""
    seconds: float
    """From the first start to the last part's readiness."""

    def told(self) -> str:
        """What is running, on one line."""
        return f"all ready in {self.seconds:.1f} s; everything is in {self.home.path}"


def print_change(change: Change) -> None:
    """Tell a change on a line of standard output; the start of a start is not worth one."""
    if change.state is not State.STARTING:
        # Whoever reads may have left; the stack goes on.
        with suppress(BrokenPipeError):
            sys.stdout.write(f"{change.line()}\n")
            sys.stdout.flush()


@asynccontextmanager
async def stack(
    home: Home, on_change: OnChange = print_change, cluster: Cluster | None = None
) -> AsyncIterator[Running]:
    """Run every part of the home's stack for as long as the block lasts; with a cluster, no local Argo.

    Raises HeldError if another process runs it, PartFailedError if a part does not become ready,
    HomeError if the home cannot be used and ProgramMissingError if a server is not installed.
    """
    home.create()
    with lock.held(home) as note:
        clean(home, on_change)
        servers = embedded.embedded(home)
        told = services.services(home, cluster)
        parts = [*embedded.parts(home, servers), *services.parts(home, servers, told)]
        write_private_json(home.client_settings, told.client_settings(servers.nats.subscriber_url))
        async with supervised(home, parts, on_change, note) as running:
            yield running


@asynccontextmanager
async def supervised(
    home: Home,
    parts: Sequence[Part],
    on_change: OnChange,
    note: Callable[[Mapping[str, str]], None],
) -> AsyncIterator[Running]:
    """Run these parts in a home that is held already."""
    addresses = {part.name: part.address for part in parts if part.address}
    note(addresses)
    supervisor = Supervisor(home, parts, on_change)
    begun = time.monotonic()
    async with supervisor:
        yield Running(home, supervisor, addresses, time.monotonic() - begun)


def up(
    home: Path | str | None = None,
    on_change: OnChange = print_change,
    on_ready: Callable[[Running], None] | None = None,
    cluster: Cluster | None = None,
) -> None:
    """Run the stack until SIGINT, SIGTERM or SIGHUP, then stop it in order and return.

    `home` is a directory, or $PERIPLUS_HOME, or .periplus here. A second signal kills what is
    left. Raises what `stack` raises.
    """
    place = locate(home)
    until_signalled(place, stack(place, on_change, cluster), on_ready)


def until_signalled(
    home: Home, opening: AbstractAsyncContextManager[Opened], on_ready: Callable[[Opened], None] | None
) -> None:
    """Open what runs in the home, keep it until SIGINT, SIGTERM or SIGHUP, then close it and return.

    A second signal kills the processes that are left.
    """
    asyncio.run(_until_signalled(home, opening, on_ready))


async def _until_signalled(
    home: Home, opening: AbstractAsyncContextManager[Opened], on_ready: Callable[[Opened], None] | None
) -> None:
    loop = asyncio.get_running_loop()
    life = asyncio.ensure_future(_live(opening, on_ready))
    signals = iter(range(1, 1_000))

    def stop() -> None:
        if next(signals) == 1:
            life.cancel()
        else:
            for child in leftovers.recorded(home.run / "children.json"):
                kill_group(child.pid)

    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(signum) is signal.SIG_IGN:
            continue  # as under nohup
        loop.add_signal_handler(signum, stop)
    with suppress(asyncio.CancelledError):
        await life


async def _live(
    opening: AbstractAsyncContextManager[Opened], on_ready: Callable[[Opened], None] | None
) -> None:
    async with opening as opened:
        if on_ready:
            on_ready(opened)
        await asyncio.Event().wait()


def clean(home: Home, on_change: OnChange) -> None:
    """End what a killed supervisor left in this home, and say so."""
    for name in leftovers.clean(home.run / "children.json"):
        on_change(Change(name, State.STOPPED, reason="left behind by a supervisor that was killed"))
