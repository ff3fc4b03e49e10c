"""Whoever reaches the local Argo's port: slow, greedy, curious and vanishing clients change nothing for others."""

import http.client
import json
import socket
import time
from collections.abc import Iterator
from datetime import timedelta

import pytest

from periplus_local.argo.samples import leaf, workflow
from periplus_local.argo.settings import HttpLimits
from periplus_local.argo.testing import Client, Refusal, local_argo

CUT_OFF = r"(?i)reset|broken|aborted"


@pytest.fixture(scope="module")
def argo() -> Iterator[Client]:
    with local_argo() as client:
        yield client


@pytest.fixture(scope="module")
def impatient() -> Iterator[Client]:
    """A server that waits only a moment for the head and the body of a request."""
    limits = HttpLimits(head_timeout=timedelta(seconds=0.3), body_timeout=timedelta(seconds=0.3))
    with local_argo(http=limits) as client:
        yield client


def connected(argo: Client) -> socket.socket:
    host, port = argo.address.removeprefix("http://").split(":")
    made = socket.create_connection((host, int(port)), timeout=20)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


def head(argo: Client, request: str, *lines: str) -> bytes:
    return "\r\n".join(
        [f"{request} HTTP/1.1", "Host: localhost", f"Authorization: Bearer {argo.token}", *lines, "", ""]
    ).encode()


def trickle(client: socket.socket, line: bytes, pause: float) -> None:
    """Send the beginning of a request, and line after line of a head that has no end."""
    client.sendall(b"GET /api/v1/version HTTP/1.1\r\n")
    for _ in range(1000):
        client.sendall(line)
        time.sleep(pause)


def status_of(raw: bytes) -> int:
    return int(raw.split(b" ", 2)[1])


def test_the_head_of_a_request_that_trickles_in_is_not_waited_for(
    impatient: Client,
) -> None:
    with connected(impatient) as silent, connected(impatient) as slow:
        assert silent.recv(1) == b""
        with pytest.raises(OSError, match=CUT_OFF):
            trickle(slow, b"X: y\r\n", pause=0.05)
    assert impatient.call("GET", "version")


def test_a_body_that_does_not_come_is_not_waited_for(impatient: Client) -> None:
    with connected(impatient) as slow:
        slow.sendall(head(impatient, "POST /api/v1/workflows/argo", "Content-Length: 100") + b"{")
        assert status_of(slow.recv(4096)) == 504


def test_a_head_without_end_and_a_body_that_is_too_large_are_refused(argo: Client) -> None:
    with connected(argo) as greedy, pytest.raises(OSError, match=CUT_OFF):
        trickle(greedy, b"X: " + b"y" * 4000 + b"\r\n", pause=0.001)
    with pytest.raises(Refusal) as refusal:
        argo.create(
            workflow(leaf("main"), arguments={"parameters": [{"name": "p", "value": "x" * (3 << 20)}]})
        )
    assert refusal.value.status == 400
    assert "larger than" in refusal.value.body


def test_a_client_that_asks_every_few_seconds_keeps_its_connection(argo: Client) -> None:
    kept = http.client.HTTPConnection(argo.address.removeprefix("http://"), timeout=20)
    sockets = set()
    for pause in (0, 5.5):
        time.sleep(pause)
        kept.request("GET", "/api/v1/version", headers={"Authorization": f"Bearer {argo.token}"})
        assert kept.getresponse().read()
        assert kept.sock
        sockets.add(kept.sock.getsockname())
    kept.close()
    assert len(sockets) == 1


def test_a_web_page_is_told_nothing(argo: Client) -> None:
    page = {"Origin": "http://evil.example"}
    with argo.open("GET", "version", headers=page) as answered:
        assert not [name for name in answered.headers if name.lower().startswith("access-control")]
    with pytest.raises(Refusal) as refusal:
        argo.call("OPTIONS", "workflows/argo", headers=page | {"Access-Control-Request-Method": "POST"})
    assert refusal.value.status == 501


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/workflows/argo/..%2f..%2f..%2fetc%2fpasswd",
        "/api/v1/workflows/argo/%2e%2e/log",
        "/artifacts/argo/..%2f..%2fetc/x/passwd",
        "/artifacts/argo/../../../etc/passwd",
        "/api/v1/workflows/..%2f../%00",
    ],
)
def test_a_name_leads_nowhere_else(argo: Client, path: str) -> None:
    with connected(argo) as curious:
        curious.sendall(head(argo, f"GET {path}"))
        answered = curious.recv(65536)
    assert status_of(answered) in {404, 501}
    assert b"root:" not in answered


def test_watchers_that_vanish_or_do_not_read_hold_nobody_up(argo: Client) -> None:
    watching = head(argo, "GET /api/v1/workflow-events/argo")
    for _ in range(20):
        with connected(argo) as vanishing:
            vanishing.sendall(watching)
            assert vanishing.recv(1)
    with connected(argo) as idle:
        idle.sendall(watching)
        names = [
            argo.create(workflow(leaf("main"), podMetadata={"annotations": {"a": "x" * 400_000}}))
            for _ in range(16)
        ]
        for name in names:
            assert argo.ended(name)["status"]["phase"] == "Succeeded"
        untold = {name.encode() for name in names}
        with idle.makefile("rb") as lines:
            while untold:
                line = lines.readline()
                assert line
                untold = {name for name in untold if b'"name":"%s"' % name not in line[:2000]}


def test_a_stream_of_one_workflow_tells_of_no_other_and_only_what_was_asked_for(argo: Client) -> None:
    other, one = argo.create(workflow(leaf("main"))), argo.create(workflow(leaf("main")))
    before = argo.ended(one)["metadata"]["resourceVersion"]
    argo.ended(other)
    argo.call("DELETE", f"workflows/argo/{other}")
    query = f"listOptions.fieldSelector=metadata.name%3D{one}&listOptions.resourceVersion={int(before) - 1}"
    with argo.open("GET", f"workflow-events/argo?{query}&fields=result.object.metadata.name") as stream:
        line = next(line for line in stream if line.startswith(b"data: "))
    told = json.loads(line[6:])["result"]
    assert told["object"]["metadata"] == {"name": one}
    assert told["object"]["spec"] == {"arguments": {}}
