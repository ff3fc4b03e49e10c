"""Authentication: only callers that reach the server over loopback and hold the token are answered."""

import hmac

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from periplus_local.argo.api.responses import error_json
from periplus_local.argo.errors import PERMISSION_DENIED, UNAUTHENTICATED, ArgoError

LOOPBACK = {"127.0.0.1", "localhost", "[::1]", "::1"}
WRONG_TOKEN = ArgoError(
    UNAUTHENTICATED, "token not valid for the local Argo: send 'Authorization: Bearer <token>'"
)
WRONG_HOST = ArgoError(
    PERMISSION_DENIED, "the local Argo answers only requests for this machine's loopback address"
)


class TokenAuth:
    """Middleware that passes on a request when its Host is loopback and its bearer token is the server's.

    The Host is checked because a web page can make a browser send requests to a DNS name that resolves to loopback;
    the token, because other users of the machine can reach the port.
    """

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._token = token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse one request, or pass it on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        if not _is_loopback(headers.get(b"host", b"").decode("latin-1")):
            await _refuse(send, WRONG_HOST)
        elif not self._has_token(headers.get(b"authorization", b"")):
            await _refuse(send, WRONG_TOKEN)
        else:
            await self._app(scope, receive, send)

    def _has_token(self, header: bytes) -> bool:
        scheme, _, token = header.partition(b" ")
        return scheme.lower() == b"bearer" and hmac.compare_digest(token.strip(), self._token)


def _is_loopback(host: str) -> bool:
    name = host[: host.index("]") + 1] if host.startswith("[") and "]" in host else host.partition(":")[0]
    return name.lower() in LOOPBACK


async def _refuse(send: Send, error: ArgoError) -> None:
    body = error_json(error)
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    headers.append((b"connection", b"close"))
    start: Message = {"type": "http.response.start", "status": error.http_status, "headers": headers}
    await send(start)
    await send({"type": "http.response.body", "body": body})
