"""A connection between the dispatcher and Argo that a test can cut."""

import asyncio
import threading
from asyncio import StreamReader, StreamWriter
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any

Open = Callable[[], Awaitable[tuple[StreamReader, StreamWriter]]]
Handler = Callable[[StreamReader, StreamWriter], Awaitable[None]]
Listen = Callable[[Handler], Coroutine[Any, Any, asyncio.Server]]


class Link:
    """Forwards connections in a thread of its own."""

    def __init__(self, loop: asyncio.AbstractEventLoop, open_connection: Open) -> None:
        self._loop = loop
        self._open = open_connection
        self._writers: set[StreamWriter] = set()
        self._is_away = False

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._writers) // 2

    def cut(self) -> None:
        """End every connection. New ones are taken."""
        self._call(self._end_all)

    @contextmanager
    def away(self) -> Iterator[None]:
        """End every connection, and each new one at once, until the block is left."""
        self._is_away = True
        self.cut()
        try:
            yield
        finally:
            self._is_away = False

    async def forward(self, reader: StreamReader, writer: StreamWriter) -> None:
        """Serve one connection."""
        opened = [writer]
        try:
            if self._is_away:
                return
            their_reader, their_writer = await self._open()
            opened.append(their_writer)
            self._writers.update(opened)
            await asyncio.gather(_copy(reader, their_writer), _copy(their_reader, writer))
        except OSError:
            pass  # the client sees the end of its connection
        finally:
            self._writers.difference_update(opened)
            for each in opened:
                each.close()

    def _end_all(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    def _call(self, function: Callable[[], None]) -> None:
        done = threading.Event()
        self._loop.call_soon_threadsafe(lambda: (function(), done.set()))
        assert done.wait(10)


async def _copy(reader: StreamReader, writer: StreamWriter) -> None:
    """Until one of both ends; then neither has a use for the other direction."""
    try:
        with suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
    finally:
        writer.close()


@contextmanager
def link(open_connection: Open, listen: Listen) -> Iterator[Link]:
    """Forward what connects to the server that `listen` starts with a handler."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    found = Link(loop, open_connection)
    server = asyncio.run_coroutine_threadsafe(listen(found.forward), loop).result(10)
    try:
        yield found
    finally:
        loop.call_soon_threadsafe(server.close)
        found.cut()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
