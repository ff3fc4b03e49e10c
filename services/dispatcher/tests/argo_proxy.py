"""A proxy in front of an Argo that decides what becomes of each request for the event stream."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

Stream = Callable[[asyncio.StreamWriter, Callable[[], Awaitable[None]]], Awaitable[None]]
"""Answers a request for the event stream: the connection of the client, and what forwards the request to Argo."""


async def silent(client: asyncio.StreamWriter, forward: Callable[[], Awaitable[None]]) -> None:
    """Send nothing, not even the head of a response, as argo-server does until the first event or keep-alive."""
    await asyncio.Event().wait()


@asynccontextmanager
async def argo_proxy(address: str, stream: Stream = silent) -> AsyncIterator[str]:
    """The address of the proxy. All requests but those for the event stream go to the Argo at `address`."""
    host, port = address.partition("://")[2].split(":")

    async def forward(head: bytes, body: bytes, client: asyncio.StreamWriter) -> None:
        reader, writer = await asyncio.open_connection(host, int(port))
        first, _, rest = head.partition(b"\r\n")
        writer.write(first + b"\r\nconnection: close\r\n" + rest + body)
        while chunk := await reader.read(65536):
            client.write(chunk)
        writer.close()

    async def serve(reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            head = await reader.readuntil(b"\r\n\r\n")
            lengths = [line for line in head.splitlines() if line.lower().startswith(b"content-length:")]
            body = await reader.readexactly(int(lengths[0].partition(b":")[2])) if lengths else b""
            if b"/workflow-events/" in head.splitlines()[0]:
                await stream(client, partial(forward, head, body, client))
            else:
                await forward(head, body, client)
        client.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
