"""Runs the whole stack of a home in the foreground, with its home locked."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from periplus_common import private_process
from periplus_local.stack import embedded, lock, orphans, services
from periplus_local.stack.home import locate
from periplus_local.stack.process import OnChange, ProcessSpec, ProcessState, StateChange
from periplus_local.stack.running_process import kill_group
from periplus_local.stack.supervisor import Supervisor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from periplus_local.stack.cluster import Cluster
    from periplus_local.stack.home import Home

Opened = TypeVar("Opened")


@dataclass(frozen=True)
class RunningStack:
    """A stack with every process ready."""

    home: Home
    supervisor: Supervisor
    addresses: Mapping[str, str]
    """host:port or unix:/path by the name of the process."""
    seconds: float
    """From the start until the last process was ready."""

    def describe(self) -> str:
        """One line about the stack, for people."""
        return f"all ready in {self.seconds:.1f} s; all data are in {self.home.path}"


def print_change(change: StateChange) -> None:
    """Print a change on standard output, except that a process is starting."""
    if change.state is not ProcessState.STARTING:
        # The reader may have closed the pipe; the stack goes on.
        with suppress(BrokenPipeError):
            sys.stdout.write(f"{change.line()}\n")
            sys.stdout.flush()


@asynccontextmanager
async def stack(
    home: Home, on_change: OnChange = print_change, cluster: Cluster | None = None
) -> AsyncIterator[RunningStack]:
    """Run every process of the home's stack until the block ends; with a cluster, without the local Argo.

    Raises HeldError if another process runs it, ProcessFailedError if a process does not become ready,
    HomeError if the home can not be used and ProgramMissingError if a server is not installed.
    """
    home.create()
    with lock.held(home) as publish:
        end_orphans(home, on_change)
        servers = embedded.embedded(home)
        found = services.assign(home, cluster)
        specs = [*embedded.specs(home, servers), *services.specs(home, servers, found)]
        async with supervised(home, specs, on_change, publish) as running:
            lock.publish_to_clients(home, found.client_settings(servers.nats))
            yield running


@asynccontextmanager
async def supervised(
    home: Home,
    specs: Sequence[ProcessSpec],
    on_change: OnChange,
    publish: Callable[[Mapping[str, str]], None],
) -> AsyncIterator[RunningStack]:
    """Run these processes in a home that this process holds; `publish` is called with their addresses."""
    addresses = {spec.name: spec.address for spec in specs if spec.address}
    publish(addresses)
    supervisor = Supervisor(home, specs, on_change)
    begun = time.monotonic()
    async with supervisor:
        yield RunningStack(home, supervisor, addresses, time.monotonic() - begun)


def up(
    home: Path | str | None = None,
    on_change: OnChange = print_change,
    on_ready: Callable[[RunningStack], None] | None = None,
    cluster: Cluster | None = None,
) -> None:
    """Run the stack until SIGINT, SIGTERM or SIGHUP, then stop it in order and return.

    `home` is a directory, or $PERIPLUS_HOME, or .periplus here. A second signal kills the
    processes that still run. Raises what `stack` raises.
    """
    located = locate(home)
    until_signalled(located, stack(located, on_change, cluster), on_ready)


def until_signalled(
    home: Home, opening: AbstractAsyncContextManager[Opened], on_ready: Callable[[Opened], None] | None
) -> None:
    """Enter the context, and leave it at SIGINT, SIGTERM or SIGHUP.

    A second signal kills the processes of the home that still run.
    """
    private_process.forbid_inspection()
    asyncio.run(_until_signalled(home, opening, on_ready))


async def _until_signalled(
    home: Home, opening: AbstractAsyncContextManager[Opened], on_ready: Callable[[Opened], None] | None
) -> None:
    loop = asyncio.get_running_loop()
    running = asyncio.ensure_future(_run(opening, on_ready))
    stopping = False

    def stop() -> None:
        nonlocal stopping
        if stopping:
            for record in orphans.read_records(home.run / "processes.json"):
                kill_group(record.pid)
        else:
            stopping = True
            running.cancel()

    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(signum) is signal.SIG_IGN:
            continue  # ignored by the caller's choice, as under nohup
        loop.add_signal_handler(signum, stop)
    with suppress(asyncio.CancelledError):
        await running


async def _run(
    opening: AbstractAsyncContextManager[Opened], on_ready: Callable[[Opened], None] | None
) -> None:
    async with opening as opened:
        if on_ready:
            on_ready(opened)
        await asyncio.Event().wait()


def end_orphans(home: Home, on_change: OnChange) -> None:
    """End the processes of this home whose supervisor was killed, and report each."""
    for name in orphans.end_orphans(home.run / "processes.json"):
        on_change(StateChange(name, ProcessState.STOPPED, reason="its supervisor had been killed"))
