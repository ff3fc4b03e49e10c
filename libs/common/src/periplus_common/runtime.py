"""How a service lives: open everything, wait for a signal, close in reverse."""

import asyncio
import signal
from contextlib import AbstractAsyncContextManager


def run(app: AbstractAsyncContextManager[object]) -> None:
    """Keep `app` open until SIGTERM or SIGINT, or until one of its tasks fails."""
    asyncio.run(_main(app))


async def _main(app: AbstractAsyncContextManager[object]) -> None:
    stop = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, stop.set)
    async with app:
        await stop.wait()
