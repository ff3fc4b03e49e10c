"""A request of the local Argo is answered only if it names loopback as its host, and comes from no page elsewhere."""

import socket
from collections.abc import Iterator

import pytest

from periplus_local.argo.testing import Client, local_argo


@pytest.fixture(scope="module")
def argo() -> Iterator[Client]:
    with local_argo() as client:
        yield client


def answer(argo: Client, *lines: bytes, target: bytes = b"/api/v1/version", version: bytes = b"1.1") -> int:
    """The HTTP status of a request with these header lines and the token."""
    head = [b"GET " + target + b" HTTP/" + version, b"Authorization: Bearer " + argo.token.encode(), *lines]
    with argo.connect() as connection:
        connection.sendall(b"\r\n".join([*head, b"Connection: close", b"", b""]))
        return int(received(connection).split(b" ", 2)[1])


def received(connection: socket.socket) -> bytes:
    found = b""
    while chunk := connection.recv(65536):
        found += chunk
    return found


OURS = [
    b"localhost", b"localhost:1", b"LOCALHOST:8080", b"LocalHost", b"127.0.0.1", b"127.0.0.1:65535", b"[::1]", b"[::1]:80",
]  # fmt: skip
OTHERS = [
    b"localhost:1@evil", b"localhost:1@evil:80", b"localhost@evil", b"user@localhost", b"user:password@localhost:1",
    b"evil.example", b"127.0.0.1.evil.example", b"localhost.evil.example", b"evil.localhost", b"evil.example:80",
    b"localhost.", b"localhost.:80", b"127.0.0.1.", b"127.1", b"127.0.1", b"2130706433", b"0x7f000001", b"0177.0.0.1",
    b"127.0.0.2", b"0.0.0.0", b"0", b"::1", b"::1:80", b"[::1", b"[::1]evil", b"[::1]:80@evil", b"[::ffff:127.0.0.1]",
    b"[0:0:0:0:0:0:0:1]", b"[::1%25lo]", b"[::]", b"[127.0.0.1]", b"[localhost]", b"localhost:", b"localhost:x",
    b"localhost:-1", b"localhost:+1", b"localhost:1:2", b"localhost:123456", b"localhost:80/", b"localhost/", b"localhost#",
    b"localhost?", b"localhost:1#@evil", b"localhost, evil", b"localhost evil", b"localhost\tevil", b"\xe2\x84\x93ocalhost",
    b"localh\xc3\xb6st", b"%6cocalhost", b"", b",", b"localhost;", b'"localhost"', b"http://localhost", b"localhost\\evil",
]  # fmt: skip


@pytest.mark.parametrize("host", OURS)
def test_a_host_that_is_loopback_is_answered(argo: Client, host: bytes):
    assert answer(argo, b"Host: " + host) == 200


@pytest.mark.parametrize("host", OTHERS)
def test_any_other_host_is_refused(argo: Client, host: bytes):
    assert answer(argo, b"Host: " + host) in (400, 403)


@pytest.mark.parametrize(
    "lines",
    [
        (),
        (b"Host: localhost", b"Host: evil.example"),
        (b"Host: evil.example", b"Host: localhost"),
        (b"Host: localhost", b"host: localhost"),
        (b"Host : localhost",),
        (b"X: y", b" Host: localhost"),
        (b"Host: evil.example", b"X-Forwarded-Host: localhost"),
        (b"Host: evil.example", b"Forwarded: host=localhost"),
    ],
)
@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_a_request_without_exactly_one_host_is_refused(
    argo: Client, lines: tuple[bytes, ...], version: bytes
):
    assert answer(argo, *lines, version=version) in (400, 403)


@pytest.mark.parametrize(
    "target",
    [
        b"http://evil.example/api/v1/version", b"http://localhost/api/v1/version", b"//evil.example/api/v1/version",
        b"evil.example:80", b"*", b"http:/api/v1/version", b"/api/v1/version@evil", b"@evil/api/v1/version",
    ],
)  # fmt: skip
def test_a_target_that_names_a_host_is_not_answered(argo: Client, target: bytes):
    assert answer(argo, b"Host: localhost", target=target) in (400, 403, 404, 501)


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        (b"http://localhost", 200),
        (b"https://localhost", 200),
        (b"http://localhost:3000", 403),
        (b"http://127.0.0.1", 403),
        (b"http://evil.example", 403),
        (b"http://localhost.evil.example", 403),
        (b"http://localhost@evil.example", 403),
        (b"null", 403),
        (b"", 403),
        (b"file://", 403),
    ],
)
def test_a_page_of_another_origin_is_refused_even_with_the_token(argo: Client, origin: bytes, status: int):
    assert answer(argo, b"Host: localhost", b"Origin: " + origin) == status


def test_two_tokens_are_none(argo: Client):
    assert answer(argo, b"Host: localhost", b"Authorization: Bearer other") == 401
