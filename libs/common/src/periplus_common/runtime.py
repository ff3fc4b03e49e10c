"""How a service lives: open everything, wait for a signal, close in reverse."""

import asyncio
import gc
import signal
from collections.abc import AsyncIterator, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any


def run(app: AbstractAsyncContextManager[object]) -> None:
    """Keep `app` open until SIGTERM or SIGINT, or until one of its tasks fails: then the process does, with its error.

    A signal that comes while the app still opens ends that, too.
    """
    asyncio.run(_main(app))


async def _main(app: AbstractAsyncContextManager[object]) -> None:
    stop = asyncio.Event()
    living = asyncio.create_task(_live(app, opened := asyncio.Event(), stop))

    def end() -> None:
        stop.set()
        if not opened.is_set():
            living.cancel()

    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, end)
    try:
        await living
    except asyncio.CancelledError:
        if not stop.is_set():
            raise


async def _live(app: AbstractAsyncContextManager[object], opened: asyncio.Event, stop: asyncio.Event) -> None:
    async with app:
        opened.set()
        # What the start made stays. A full collection would walk its hundred thousand objects again and again, and
        # hold up whatever call it falls into for some 50 ms.
        gc.freeze()
        await stop.wait()


@asynccontextmanager
async def background_task(work: Coroutine[Any, Any, None], *, patience: float = 0) -> AsyncIterator[None]:
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
