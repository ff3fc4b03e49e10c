"""Fixtures of this folder's tests: the real servers, and a proxy in front of them that can be closed."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from urllib.parse import unquote, urlsplit

import pytest

from periplus_common import postgres
from periplus_common.unix_socket import POSTGRES_SOCKET
from periplus_local.stack.testing import Servers, database, embedded

__all__ = ["embedded"]


class Gate:
    """A TCP proxy of a server on a port or a Unix socket. Shut, it ends its connections and accepts none."""

    def __init__(self, behind: int | str) -> None:
        self._behind = behind
        self._server: asyncio.Server | None = None
        self._through: set[asyncio.StreamWriter] = set()
        self._clients: set[asyncio.StreamWriter] = set()
        self.port = 0
        self._refusal: bytes | None = None

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._pass, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def shut(self) -> None:
        if self._server:
            self._server.close()
        for writer in list(self._through):
            writer.transport.abort()
        await asyncio.sleep(0)

    def say(self, content: bytes) -> None:
        """Send content to every client, as if the server had sent it."""
        for writer in self._clients:
            writer.write(content)

    def refuse(self, content: bytes | None) -> None:
        """End all connections; answer each new one with `content` and end it. None: accept new ones again."""
        self._refusal = content
        if content:
            for writer in list(self._through):
                writer.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusal:
            writer.write(b'INFO {"server_id": "gate", "max_payload": 1048576}\r\n' + self._refusal)
            await reader.readline()  # the client's CONNECT
            writer.close()
            return
        far_reader, far_writer = await self._connect()
        both = {writer, far_writer}
        self._through |= both
        self._clients.add(writer)
        try:
            await asyncio.gather(self._pump(reader, far_writer), self._pump(far_reader, writer))
        finally:
            self._through -= both
            self._clients.discard(writer)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(self._behind, str):
            return await asyncio.open_unix_connection(self._behind)
        return await asyncio.open_connection("127.0.0.1", self._behind)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while content := await source.read(1 << 16):
                sink.write(content)
                await sink.drain()
        except ConnectionError:
            pass
        finally:
            sink.transport.abort()


@asynccontextmanager
async def gated(address: str) -> AsyncIterator[tuple[Gate, str]]:
    """A gate of the server at a URL or host:port, and the address of the gate."""
    host, _, port = (
        urlsplit(address if "//" in address else f"//{address}").netloc.rpartition("@")[2].partition(":")
    )
    gate = Gate(int(port) if port else f"{unquote(host)}/{POSTGRES_SOCKET}")
    await gate.open()
    try:
        yield (
            gate,
            address.replace(
                f":{port}" if port else host, f":{gate.port}" if port else f"127.0.0.1:{gate.port}"
            ),
        )
    finally:
        await gate.shut()


@pytest.fixture
async def gates() -> AsyncIterator[Callable[[str], object]]:
    """Opens gates; each is shut at the end of the test."""
    async with AsyncExitStack() as stack:

        async def gate(address: str) -> tuple[Gate, str]:
            return await stack.enter_async_context(gated(address))

        yield gate


@pytest.fixture
async def dsn(embedded: Servers) -> AsyncIterator[str]:
    """A new database with the outbox in it."""
    async with database(embedded) as fresh:
        await postgres.migrate(fresh, "periplus_common")
        yield fresh


@pytest.fixture
def until() -> Callable[[Callable[[], bool]], object]:
    """Waits until a condition is true, for a minute at most."""

    async def wait(true: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not true():  # noqa: ASYNC110 - what is waited for is plain data
                await asyncio.sleep(0.01)

    return wait
