"""Who may ask: only callers on this machine that hold the token."""

import hmac
import json

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from periplus_local.argo.faults import Fault

LOOPBACK = {"127.0.0.1", "localhost", "[::1]", "::1"}
UNKNOWN = Fault(16, "token not valid for the local Argo: send 'Authorization: Bearer <token>'")
FOREIGN = Fault(7, "the local Argo answers only requests for this machine's loopback address")


class Guard:
    """Lets a request through when its Host is loopback and its bearer token is the server's.

    The Host is looked at because a web page can make a browser send requests to a name of its own that
    leads to loopback; the token, because other users of the machine can reach the port.
    """

    def __init__(self, app: ASGIApp, token: str) -> None:
        """Guard the application with a token."""
        self._app = app
        self._token = token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass on, one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        if not _is_loopback(headers.get(b"host", b"").decode("latin-1")):
            await refuse(send, FOREIGN)
        elif not self._is_known(headers.get(b"authorization", b"")):
            await refuse(send, UNKNOWN)
        else:
            await self._app(scope, receive, send)

    def _is_known(self, header: bytes) -> bool:
        kind, _, token = header.partition(b" ")
        return kind.lower() == b"bearer" and hmac.compare_digest(token.strip(), self._token)


def _is_loopback(host: str) -> bool:
    name = host[: host.index("]") + 1] if host.startswith("[") and "]" in host else host.partition(":")[0]
    return name.lower() in LOOPBACK


def encoded(fault: Fault) -> bytes:
    """A fault as the body of an answer."""
    said = {"code": fault.code, "message": fault.message}
    return json.dumps(said, ensure_ascii=False, separators=(",", ":")).encode()


async def refuse(send: Send, fault: Fault) -> None:
    """Answer with a fault."""
    body = encoded(fault)
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    headers.append((b"connection", b"close"))
    start: Message = {"type": "http.response.start", "status": fault.status, "headers": headers}
    await send(start)
    await send({"type": "http.response.body", "body": body})
