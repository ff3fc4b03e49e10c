"""Authentication: only callers that reach the server over loopback and hold the token are answered."""

import hmac
import re
from collections.abc import Sequence

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from periplus_local.argo.api.responses import error_json
from periplus_local.argo.errors import PERMISSION_DENIED, UNAUTHENTICATED, ArgoError

# RFC 9110 7.2: host[:port], with no user before it.
LOOPBACK = re.compile(rb"(127\.0\.0\.1|localhost|\[::1\])(:[0-9]{1,5})?", re.IGNORECASE)
WRONG_TOKEN = ArgoError(
    UNAUTHENTICATED, "token not valid for the local Argo: send 'Authorization: Bearer <token>'"
)
WRONG_HOST = ArgoError(
    PERMISSION_DENIED, "the local Argo answers only requests for this machine's loopback address"
)


class TokenAuth:
    """Middleware that passes on a request when its Host is loopback and its bearer token is the server's.

    The Host is checked because a web page can make a browser send requests to a DNS name that resolves to loopback;
    the Origin, because a page can send requests to loopback itself; the token, because other users of the machine can
    reach the port.
    """

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._token = token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse one request, or pass it on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if not _is_for_loopback(scope):
            await _refuse(send, WRONG_HOST)
        elif not self._has_token(_values(scope, b"authorization")):
            await _refuse(send, WRONG_TOKEN)
        else:
            await self._app(scope, receive, send)

    def _has_token(self, headers: Sequence[bytes]) -> bool:
        if len(headers) != 1:
            return False
        scheme, _, token = headers[0].partition(b" ")
        return scheme.lower() == b"bearer" and hmac.compare_digest(token.strip(), self._token)


def _is_for_loopback(scope: Scope) -> bool:
    """Whether a request names loopback as its host, exactly once, and comes from no page of another host."""
    hosts, origins = _values(scope, b"host"), _values(scope, b"origin")
    # A target with a host of its own ("GET http://evil.example/ HTTP/1.1") would come before the Host.
    if len(hosts) != 1 or not LOOPBACK.fullmatch(hosts[0]) or not scope["raw_path"].startswith(b"/"):
        return False
    return all(origin.lower() in _origins(hosts[0].lower()) for origin in origins)


def _origins(host: bytes) -> tuple[bytes, ...]:
    return b"http://" + host, b"https://" + host


def _values(scope: Scope, name: bytes) -> list[bytes]:
    return [value for key, value in scope["headers"] if key == name]


async def _refuse(send: Send, error: ArgoError) -> None:
    body = error_json(error)
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    headers.append((b"connection", b"close"))
    start: Message = {"type": "http.response.start", "status": error.http_status, "headers": headers}
    await send(start)
    await send({"type": "http.response.body", "body": body})
