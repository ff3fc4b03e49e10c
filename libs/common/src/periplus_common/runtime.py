"""A service's process: open everything, wait for a signal, close in reverse order."""

import asyncio
import gc
import signal
from collections.abc import AsyncIterator, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from typing import Any


def run(app: AbstractAsyncContextManager[object]) -> None:
    """Keep `app` open until SIGTERM or SIGINT. Where a task of it fails, the process ends with that error.

    A signal while the app still opens cancels the opening.
    """
    asyncio.run(_main(app))


async def _main(app: AbstractAsyncContextManager[object]) -> None:
    stop = asyncio.Event()
    serving = asyncio.create_task(_serve(app, opened := asyncio.Event(), stop))

    def end() -> None:
        stop.set()
        if not opened.is_set():
            serving.cancel()

    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, end)
    try:
        await serving
    except asyncio.CancelledError:
        if not stop.is_set():
            raise


async def _serve(
    app: AbstractAsyncContextManager[object], opened: asyncio.Event, stop: asyncio.Event
) -> None:
    async with app:
        opened.set()
        collect_garbage_rarely()
        await stop.wait()


def collect_garbage_rarely() -> None:
    """Let Python look for reference cycles rarely, and never among the objects that exist now.

    By default it looks after every 700 new objects: a batch of events makes ten thousand, all of them in use, and a quarter of the time
    went there. A full collection would visit the hundred thousand objects of the imports each time, and delay the call that is running
    by some 50 ms.
    """
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


@asynccontextmanager
async def background_task(
    work: Coroutine[Any, Any, None], *, grace: timedelta = timedelta(0)
) -> AsyncIterator[None]:
    """Run `work` for as long as the block is open; where it fails, the block fails.

    When the block is left, `work` has `grace` to end by itself. Then it is cancelled, once a second until it ends:
    nats-py swallows a cancellation that arrives during a flush.
    """
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(work)
        try:
            yield
        finally:
            await asyncio.wait({task}, timeout=grace.total_seconds())
            while not task.done():
                task.cancel()
                await asyncio.wait({task}, timeout=1)
