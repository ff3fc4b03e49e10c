"""How a service lives: open everything, wait for a signal, close in reverse."""

import asyncio
import signal
from collections.abc import AsyncIterator, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any


def run(app: AbstractAsyncContextManager[object]) -> None:
    """Keep `app` open until SIGTERM or SIGINT, or until one of its tasks fails."""
    asyncio.run(_main(app))


async def _main(app: AbstractAsyncContextManager[object]) -> None:
    stop = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, stop.set)
    async with app:
        await stop.wait()


@asynccontextmanager
async def beside(work: Coroutine[Any, Any, None], *, patience: float = 0) -> AsyncIterator[None]:
    """Run `work` for as long as the block is open; where it fails, the block does.

    Leaving the block, it has `patience` seconds to end by itself, and is then cancelled until it heeds: the
    NATS client swallows a cancellation that meets it in the middle of a flush.
    """
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(work)
        try:
            yield
        finally:
            await asyncio.wait({task}, timeout=patience)
            while not task.done():
                task.cancel()
                await asyncio.wait({task}, timeout=1)
