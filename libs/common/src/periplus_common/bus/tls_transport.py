"""nats-py's connection to a server, with TLS from its first byte.

nats-py's own TLS begins on an open connection. Its writes raise AttributeError once the connection is closed, where those of a
plain connection have no effect, and that ends its reconnecting or its closing half-way.
"""

import asyncio
import ssl
from collections.abc import Iterable
from urllib.parse import ParseResult

from nats.aio.transport import TcpTransport

_SHUTDOWN_SECONDS = 2.0
"""Of waiting for the server's end of TLS when the connection is closed; a server that was killed sends none."""


class TlsTransport(TcpTransport):
    """A connection that is verified before anything is sent on it."""

    def __init__(self, context: ssl.SSLContext) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._context = context

    def __bool__(self) -> bool:
        """True also before the first connection: the client would replace it by one of its own."""
        return True

    async def connect(self, uri: ParseResult, buffer_size: int, connect_timeout: int) -> None:
        """Connect, and verify the server. Raises OSError, ssl.SSLError, TimeoutError."""
        opening = asyncio.open_connection(
            uri.hostname,
            uri.port,
            limit=buffer_size,
            ssl=self._context,
            ssl_handshake_timeout=connect_timeout,
            ssl_shutdown_timeout=_SHUTDOWN_SECONDS,
        )
        async with asyncio.timeout(connect_timeout):
            self._io_reader, self._io_writer = await opening

    async def connect_tls(self, *_: object) -> None:
        """`connect` has done it, before the server could ask for it."""

    def write(self, payload: bytes) -> None:
        """Send bytes; without effect on a closed connection."""
        self.writelines([payload])

    def writelines(self, payload: Iterable[bytes]) -> None:
        """The same for several."""
        if self._io_writer and not self._io_writer.transport.is_closing():
            self._io_writer.writelines(payload)

    def close(self) -> None:
        """Close the connection, unless it is closed."""
        if self._io_writer and not self._io_writer.transport.is_closing():
            self._io_writer.close()
