"""HTTP on loopback for an application: its port, and how long and how much a client may keep it waiting."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

LARGEST_HEAD = 32 * 1024
SECONDS_FOR_A_HEAD = 10.0
# Argo keeps connections open; a client that asks every few seconds must not meet one that just closes.
SECONDS_BETWEEN_REQUESTS = 3600
MOST_CONNECTIONS = 500


class Connection(H11Protocol):
    """A connection that is closed when the head of a request takes too long to come."""

    _patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first request."""
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Take what came; wait on when it is the beginning of a request only."""
        super().data_received(data)
        if self.conn.their_state is h11.IDLE and self.conn.trailing_data[0]:
            self._wait()
        elif self._patience is not None and self.cycle is not None:
            self._patience.cancel()
            self._patience = None

    def _wait(self) -> None:
        if self._patience is None:
            self._patience = self.loop.call_later(SECONDS_FOR_A_HEAD, self.transport.close)


class _Server(uvicorn.Server):
    """A uvicorn that leaves signals to the process it is part of."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


@asynccontextmanager
async def serving(application: ASGIApp, port: int) -> AsyncIterator[tuple[int, "asyncio.Task[None]"]]:
    """Serve on 127.0.0.1 until the context is left; gives the port, a free one for 0, and the server's task."""
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.1", port))
        server = _Server(_config(application))
        task = asyncio.create_task(server.serve(sockets=[listening]), name="local-argo-http")
        while not server.started and not task.done():  # noqa: ASYNC110 - it has no event to wait for
            await asyncio.sleep(0.005)
        try:
            yield listening.getsockname()[1], task
        finally:
            server.should_exit = True
            await task


def _config(application: ASGIApp) -> uvicorn.Config:
    return uvicorn.Config(
        application,
        http=Connection,
        ws="none",
        lifespan="off",
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        h11_max_incomplete_event_size=LARGEST_HEAD,
        limit_concurrency=MOST_CONNECTIONS,
        timeout_keep_alive=SECONDS_BETWEEN_REQUESTS,
        timeout_graceful_shutdown=1,
    )
