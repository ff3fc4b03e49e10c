"""Clients that are slow, send too much, vanish or are not allowed in do not affect others."""

import http.client
import json
import socket
import time
from collections.abc import Iterator
from datetime import timedelta

import pytest

from periplus_local.argo.samples import container_template, workflow
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


def head(argo: Client, request: str, *lines: str) -> bytes:
    return "\r\n".join(
        [f"{request} HTTP/1.1", "Host: localhost", f"Authorization: Bearer {argo.token}", *lines, "", ""]
    ).encode()


def trickle(client: socket.socket, line: bytes, pause: float) -> None:
    """Send the start of a request, and then header lines without end."""
    client.sendall(b"GET /api/v1/version HTTP/1.1\r\n")
    for _ in range(1000):
        client.sendall(line)
        time.sleep(pause)


def status_of(raw: bytes) -> int:
    return int(raw.split(b" ", 2)[1])


def test_a_connection_whose_request_head_does_not_arrive_in_time_is_closed(
    impatient: Client,
) -> None:
    with impatient.connect() as silent, impatient.connect() as slow:
        assert silent.recv(1) == b""
        with pytest.raises(OSError, match=CUT_OFF):
            trickle(slow, b"X: y\r\n", pause=0.05)
    assert impatient.call("GET", "version")


def test_a_request_whose_body_does_not_arrive_in_time_is_refused(impatient: Client) -> None:
    with impatient.connect() as slow:
        slow.sendall(head(impatient, "POST /api/v1/workflows/argo", "Content-Length: 100") + b"{")
        assert status_of(slow.recv(4096)) == 504


def test_too_large_heads_and_bodies_are_refused(argo: Client) -> None:
    with argo.connect() as greedy, pytest.raises(OSError, match=CUT_OFF):
        trickle(greedy, b"X: " + b"y" * 4000 + b"\r\n", pause=0.001)
    with pytest.raises(Refusal) as refusal:
        argo.create(
            workflow(
                container_template("main"),
                arguments={"parameters": [{"name": "p", "value": "x" * (3 << 20)}]},
            )
        )
    assert refusal.value.status == 400
    assert "larger than" in refusal.value.body


def test_a_client_that_polls_every_few_seconds_keeps_its_connection(argo: Client) -> None:
    connection = http.client.HTTPConnection(argo.address.removeprefix("http://"), timeout=20)
    sockets = set()
    for pause in (0, 5.5):
        time.sleep(pause)
        connection.request("GET", "/api/v1/version", headers={"Authorization": f"Bearer {argo.token}"})
        assert connection.getresponse().read()
        assert connection.sock
        sockets.add(connection.sock.getsockname())
    connection.close()
    assert len(sockets) == 1


def test_no_cors_headers_are_sent_and_pages_are_refused(argo: Client) -> None:
    for page in ({"Origin": "http://evil.example"}, {"Origin": "null"}):
        with pytest.raises(Refusal) as refusal:
            argo.call("GET", "version", headers=page)
        assert refusal.value.status == 403
        with argo.connect() as connection:
            connection.sendall(head(argo, "OPTIONS /api/v1/workflows/argo", f"Origin: {page['Origin']}"))
            assert b"access-control-" not in connection.recv(65536).lower()


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
def test_a_path_cannot_escape_to_files(argo: Client, path: str) -> None:
    with argo.connect() as curious:
        curious.sendall(head(argo, f"GET {path}"))
        answered = curious.recv(65536)
    assert status_of(answered) in {404, 501}
    assert b"root:" not in answered


def test_watches_that_vanish_or_do_not_read_block_no_other_client(argo: Client) -> None:
    watching = head(argo, "GET /api/v1/workflow-events/argo")
    for _ in range(20):
        with argo.connect() as vanishing:
            vanishing.sendall(watching)
            assert vanishing.recv(1)
    with argo.connect() as idle:
        idle.sendall(watching)
        names = [
            argo.create(
                workflow(container_template("main"), podMetadata={"annotations": {"a": "x" * 400_000}})
            )
            for _ in range(16)
        ]
        for name in names:
            assert argo.ended(name)["status"]["phase"] == "Succeeded"
        not_received = {name.encode() for name in names}
        with idle.makefile("rb") as lines:
            while not_received:
                line = lines.readline()
                assert line
                not_received = {name for name in not_received if b'"name":"%s"' % name not in line[:2000]}


def test_a_stream_of_one_workflow_has_only_its_events_and_the_fields_of_the_mask(argo: Client) -> None:
    other, one = (
        argo.create(workflow(container_template("main"))),
        argo.create(workflow(container_template("main"))),
    )
    before = argo.ended(one)["metadata"]["resourceVersion"]
    argo.ended(other)
    argo.call("DELETE", f"workflows/argo/{other}")
    query = f"listOptions.fieldSelector=metadata.name%3D{one}&listOptions.resourceVersion={int(before) - 1}"
    with argo.open("GET", f"workflow-events/argo?{query}&fields=result.object.metadata.name") as stream:
        line = next(line for line in stream if line.startswith(b"data: "))
    event = json.loads(line[6:])["result"]
    assert event["object"]["metadata"] == {"name": one}
    assert event["object"]["spec"] == {"arguments": {}}
