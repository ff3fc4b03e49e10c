"""The tidying up after steps, which nobody waits for."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor


class Tidying:
    """Works that go on in threads, by the name of the folder that each is about; a bounded number."""

    def __init__(self, threads: Executor, most: int) -> None:
        self._threads = threads
        self._places = asyncio.Semaphore(most)
        self._works: dict[str, asyncio.Future[None]] = {}

    async def add(self, name: str, work: Callable[[], None]) -> None:
        """Begin a work; waits only while too many others are not over."""
        await self._places.acquire()
        begun = asyncio.get_running_loop().run_in_executor(self._threads, work)
        self._works[name] = begun
        begun.add_done_callback(lambda _: self._end(name))

    async def over(self, name: str) -> None:
        """Wait until nothing is done to this folder any more."""
        if name in self._works:
            await asyncio.wait([self._works[name]])

    async def all_over(self) -> None:
        """Wait until all works are over."""
        if self._works:
            await asyncio.wait(list(self._works.values()))

    def _end(self, name: str) -> None:
        self._places.release()
        self._works.pop(name, None)
