"""Pauses in long work that other tasks of the process make use of."""

import asyncio
import time
from datetime import timedelta


class Pauses:
    """Lets the other tasks of a process go on while one computes something long."""

    def __init__(self, every: timedelta = timedelta(milliseconds=20)) -> None:
        self._every = every.total_seconds()
        self._since = time.perf_counter()

    async def take(self) -> None:
        """Pause if the last pause was long ago; to be called between small parts of the work."""
        if time.perf_counter() - self._since >= self._every:
            await asyncio.sleep(0)
            self._since = time.perf_counter()
