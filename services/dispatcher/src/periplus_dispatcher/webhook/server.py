"""HTTPS for the webhook: who may ask, how much at a time, and certificates that are replaced while it runs."""

import asyncio
import hmac
import logging
import socket
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from uvicorn.protocols.http.h11_impl import H11Protocol

from periplus_common import telemetry
from periplus_common.errors import Invalid
from periplus_dispatcher.admission import Admission, AdmissionAnswer
from periplus_dispatcher.webhook import review

log = logging.getLogger(__name__)

_BAD_REQUEST, _NOT_FOUND, _TOO_LARGE, _TIMEOUT = 400, 404, 413, 408

_durations = telemetry.histogram(
    "periplus.admission.duration",
    unit="s",
    description="Time to answer about a Workflow that others create, by what became of it.",
    attributes=("periplus.outcome",),
)


@dataclass(frozen=True)
class WebhookLimits:
    """How long a client may take for the head of a request and for its body, how large they may be, and how many there may be."""

    head: timedelta = timedelta(seconds=5)
    body: timedelta = timedelta(seconds=2)
    head_bytes: int = 16 << 10
    body_bytes: int = 4 << 20
    connections: int = 200
    keep_alive: timedelta = timedelta(seconds=90)
    certificate_check: timedelta = timedelta(seconds=10)


class _Protocol(H11Protocol):
    """A connection that is closed if it sends no request in time: after it was opened, and after each answer."""

    def __init__(self, *args: Any, limits: WebhookLimits, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_seconds = limits.head.total_seconds()
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the timer."""
        super().connection_made(transport)
        self._head_timer = self.loop.call_later(self._head_seconds, transport.abort)

    def data_received(self, data: bytes) -> None:
        """Stop the timer with the first head; from then on the server's own timer for idle connections counts."""
        super().data_received(data)
        if self._head_timer is not None and self.cycle is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timer."""
        if self._head_timer is not None:
            self._head_timer.cancel()
        super().connection_lost(exc)


class _Server(uvicorn.Server):
    """A uvicorn server that leaves signals to the process it is part of."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


def application(admission: Admission, token: str, limits: WebhookLimits) -> Starlette:
    """`POST /mutate/<token>`: an answer has cached outputs, which are not for everybody who can connect."""

    async def mutate(request: Request) -> Response:
        if not hmac.compare_digest(request.path_params["token"].encode(), token.encode()):
            return _error(_NOT_FOUND, "there is nothing here")
        started = time.monotonic()
        try:
            async with asyncio.timeout(limits.body.total_seconds()):
                body = await _body(request, limits.body_bytes)
            read = await asyncio.to_thread(review.read, body) if len(body) > 1 << 18 else review.read(body)
        except TimeoutError:
            return _error(_TIMEOUT, "the request did not arrive in time")
        except ClientDisconnect:
            return Response(status_code=_BAD_REQUEST)
        except _TooLargeError:
            return _error(_TOO_LARGE, f"a request has at most {limits.body_bytes} bytes")
        except Invalid as error:
            return _error(_BAD_REQUEST, error.message, error.field)
        given = AdmissionAnswer()
        if read.workflow is not None:
            given = await admission.admit(read.workflow, read.namespace)
            _durations.record(time.monotonic() - started, {"periplus.outcome": _outcome(given)})
        return JSONResponse(review.answer(read.uid, given))

    return Starlette(routes=[Route("/mutate/{token}", mutate, methods=["POST"])])


@asynccontextmanager
async def serving(
    admission: Admission,
    address: str,
    token: str,
    certificate: tuple[Path, Path],
    limits: WebhookLimits | None = None,
) -> AsyncIterator[int]:
    """Serve until the block is left; gives the port. `address` is host and port, `certificate` the files of the chain and its key.

    Raises OSError for an address that is taken, and for files that are not a certificate with its key.
    """
    limits = limits or WebhookLimits()
    with _listening(address) as listening:
        config = _config(application(admission, token, limits), certificate, limits)
        config.load()
        server = _Server(config)
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(server.serve(sockets=[listening]))
            while not server.started and not running.done():  # noqa: ASYNC110 - it has no event to wait for
                await asyncio.sleep(0.005)
            assert config.ssl is not None
            renewing = tasks.create_task(_renewing(config.ssl, certificate, limits.certificate_check))
            try:
                yield listening.getsockname()[1]
            finally:
                renewing.cancel()
                server.should_exit = True


def _listening(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With its protocol: without, asyncio sends no part of an answer before the one before it was acknowledged, after 40 ms.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host.strip("[]"), int(port)))
    except OSError:
        listening.close()
        raise
    return listening


def _config(app: Starlette, certificate: tuple[Path, Path], limits: WebhookLimits) -> uvicorn.Config:
    protocol: Any = partial(_Protocol, limits=limits)
    return uvicorn.Config(
        app,
        http=protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        h11_max_incomplete_event_size=limits.head_bytes,
        limit_concurrency=limits.connections,
        timeout_keep_alive=int(limits.keep_alive.total_seconds()),
        timeout_graceful_shutdown=1,
        ssl_certfile=str(certificate[0]),
        ssl_keyfile=str(certificate[1]),
    )


async def _renewing(context: ssl.SSLContext, certificate: tuple[Path, Path], every: timedelta) -> None:
    """Load the certificate anew whenever its files have changed, for the connections from then on. A bad one is not used."""
    loaded = _versions(certificate)
    while True:
        await asyncio.sleep(every.total_seconds())
        if (found := _versions(certificate)) == loaded or not all(found):
            continue
        try:
            # A pair that does not fit must not take the place of the one in use.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(*certificate)
            context.load_cert_chain(*certificate)
        except OSError as error:  # as are those of ssl
            log.warning("the webhook keeps its certificate, as the new one can not be used: %s", error)
        else:
            log.info("the webhook has a new certificate")
        loaded = found


def _versions(certificate: tuple[Path, Path]) -> list[tuple[int, int] | None]:
    return [
        (stat.st_mtime_ns, stat.st_size) if (stat := path.stat() if path.exists() else None) else None
        for path in certificate
    ]


class _TooLargeError(Exception):
    """A body is larger than the limit."""


async def _body(request: Request, limit: int) -> bytes:
    parts, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise _TooLargeError
        parts.append(chunk)
    return b"".join(parts)


def _outcome(given: AdmissionAnswer) -> str:
    return "refused" if given.refusal else "rewritten" if given.patch else "unchanged"


def _error(status: int, message: str, field: str = "") -> JSONResponse:
    return JSONResponse({"message": message, **({"field": field} if field else {})}, status_code=status)
