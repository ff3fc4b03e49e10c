"""HTTP for an application: its port on loopback or its Unix socket, and the limits of connections and request heads."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from periplus_common.unix_socket import PREFIX, short_path
from periplus_local.argo.settings import HttpLimits


class HeadTimeoutProtocol(H11Protocol):
    """A connection that is closed when the head of a request does not arrive in time.

    Of the connections whose first head has not arrived, the oldest is closed where there are more than the limits allow:
    whoever opens thousands keeps none of them open, and a client that sends its request at once is served.
    """

    def __init__(
        self, *args: Any, limits: HttpLimits, waiting: "dict[HeadTimeoutProtocol, None]", **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self._head_seconds = limits.head_timeout.total_seconds()
        self._max_waiting = limits.max_waiting
        self._waiting = waiting  # of the whole server, oldest first
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the timer for the first request."""
        super().connection_made(transport)
        self._start_timer()
        self._waiting[self] = None
        if len(self._waiting) > self._max_waiting:
            oldest = next(iter(self._waiting))
            del self._waiting[oldest]
            oldest.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._waiting.pop(self, None)
        if self._head_timer is not None:
            self._head_timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Stop the timer once a head is complete; start it when the next head begins."""
        super().data_received(data)
        if self.conn.their_state is h11.IDLE and self.conn.trailing_data[0]:
            self._start_timer()
        elif self._head_timer is not None and self.cycle is not None:
            self._head_timer.cancel()
            self._head_timer = None
            self._waiting.pop(self, None)

    def _start_timer(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self._head_seconds, self.transport.close)


class _Server(uvicorn.Server):
    """A uvicorn server that leaves signals to the process it is part of."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


def port_on_loopback(port: int) -> tuple[socket.socket, str]:
    """A socket bound to the port of 127.0.0.1, or to a free one for 0, and its address."""
    listening = socket.socket()
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.1", port))
    except OSError:
        listening.close()
        raise
    return listening, f"http://127.0.0.1:{listening.getsockname()[1]}"


def unix_socket(path: Path) -> tuple[socket.socket, str]:
    """A Unix socket bound to the path, in place of one that a killed server left behind, and its address."""
    listening = socket.socket(socket.AF_UNIX)
    try:
        path.unlink(missing_ok=True)
        listening.bind(short_path(str(path)))
    except OSError:
        listening.close()
        raise
    return listening, f"{PREFIX}{path}"


@asynccontextmanager
async def serving(
    application: ASGIApp, listening: socket.socket, limits: HttpLimits
) -> AsyncIterator["asyncio.Task[None]"]:
    """Serve on a bound socket until the context is left, which closes it; gives the server's task."""
    with listening:
        server = _Server(_config(application, limits))
        task = asyncio.create_task(server.serve(sockets=[listening]), name="local-argo-http")
        while not server.started and not task.done():  # noqa: ASYNC110 - it has no event to wait for
            await asyncio.sleep(0.005)
        try:
            yield task
        finally:
            server.should_exit = True
            await task


def _config(application: ASGIApp, limits: HttpLimits) -> uvicorn.Config:
    protocol: Any = partial(HeadTimeoutProtocol, limits=limits, waiting={})
    return uvicorn.Config(
        application,
        http=protocol,
        ws="none",
        lifespan="off",
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        h11_max_incomplete_event_size=limits.max_head_bytes,
        limit_concurrency=limits.max_connections,
        timeout_keep_alive=int(limits.keep_alive.total_seconds()),
        timeout_graceful_shutdown=1,
    )
