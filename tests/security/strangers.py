"""Servers of another user on ports that a stack had: they speak each protocol far enough to be sent a secret."""

import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

_HTTP2_SETTINGS = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"  # without it a client sends no call
_NATS_INFO = (
    b'INFO {"server_id":"x","version":"2.12.0","proto":1,"max_payload":1048576,"auth_required":true}\r\n'
)
_PASSWORD_PLEASE = b"R\x00\x00\x00\x08\x00\x00\x00\x03"  # PostgreSQL's request for a password in plain text
_TLS_HELLO = b"\x16\x03"
_SSL_REQUEST = b"\x00\x00\x00\x08\x04\xd2\x16\x2f"


@dataclass
class Stranger:
    """A server of someone else, and every byte that it received, inside TLS where it has a certificate."""

    name: str
    listener: socket.socket
    certificate: ssl.SSLContext | None = None
    received: bytearray = field(default_factory=bytearray)
    connections: int = 0

    @property
    def port(self) -> int:
        return int(self.listener.getsockname()[1])

    def received_any(self, texts: set[str]) -> bool:
        """Whether one of the texts was sent to it."""
        return any(text.encode() in self.received for text in texts if text)

    def serve(self) -> None:
        """Answer until the listener is closed."""
        with suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                self.connections += 1
                threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        connection.settimeout(5)
        with suppress(OSError), connection:
            if self.certificate:
                connection = self.certificate.wrap_socket(connection, server_side=True)
            if self.name in ("nats", "events"):
                connection.sendall(_NATS_INFO)
            while chunk := connection.recv(65_536):
                self.received += chunk
                if chunk.startswith(_TLS_HELLO):
                    return  # which it can not answer without a certificate
                connection.sendall(self._reply(chunk))

    def _reply(self, chunk: bytes) -> bytes:
        if chunk.startswith(b"PRI * HTTP/2"):
            return _HTTP2_SETTINGS
        if b"PING\r\n" in chunk:  # of NATS, with the login and before a client leaves
            return b"PONG\r\n"
        if chunk == _SSL_REQUEST:
            return b"N"
        if b"\x00user\x00" in chunk[:64]:
            return _PASSWORD_PLEASE
        if b"HTTP/1.1\r\n" in chunk:
            return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
        return b""


@contextmanager
def listening(
    ports: Mapping[str, int], certificate: ssl.SSLContext | None = None
) -> Iterator[list[Stranger]]:
    """A stranger on each port (0: any), by the name of what listened there. Ports that are taken are left out."""
    found: dict[int, Stranger] = {}
    for name, port in ports.items():
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with suppress(OSError):
            listener.bind(("127.0.0.1", port))
            listener.listen()
            found[listener.getsockname()[1]] = Stranger(name, listener, certificate)
    for stranger in found.values():
        threading.Thread(target=stranger.serve, daemon=True).start()
    try:
        yield list(found.values())
    finally:
        for stranger in found.values():
            with suppress(OSError):
                stranger.listener.shutdown(socket.SHUT_RDWR)
            stranger.listener.close()
