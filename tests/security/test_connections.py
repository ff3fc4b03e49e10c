"""Many idle connections, slow senders and clients that read nothing do not hold up others, and cost little."""

import asyncio
import contextlib
import http.client
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import grpc
import nats
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from minio import Minio
from nats.js.api import AckPolicy, ConsumerConfig
from security import idle_server

from periplus_local.argo.settings import HttpLimits
from periplus_local.argo.testing import ArgoProcess, Client, local_argo
from periplus_local.stack.testing import Servers

CONNECTIONS = 1000
MIB = 1 << 20


@pytest.fixture(autouse=True, scope="module")
def _descriptors() -> Iterator[None]:
    """As many descriptors for the test as the system allows."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if before[1] < 4 * CONNECTIONS:
        pytest.skip(f"the hard limit of descriptors is {before[1]}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (4 * CONNECTIONS, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@contextmanager
def few_descriptors(count: int) -> Iterator[None]:
    """Processes that are started in the block may open this many files."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@contextmanager
def flood(port: int, sent: bytes = b"", count: int = CONNECTIONS) -> Iterator[list[socket.socket]]:
    """Open connections that have sent this and no more."""
    with ExitStack() as stack:
        connections = []
        for _ in range(count):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=5))
            with suppress(OSError):  # those that were closed meanwhile
                connection.sendall(sent)
            connections.append(connection)
        yield connections


def answers(call: Callable[[], object], times: int = 5) -> None:
    """Call it: each time it must succeed within a minute."""
    for _ in range(times):
        until(call)


def listening(port: int) -> psutil.Process:
    """The process that listens on a port."""
    for connection in psutil.net_connections("tcp4"):
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid:
            return psutil.Process(connection.pid)
    raise LookupError(port)


@pytest.fixture(scope="module")
def argo() -> Iterator[Client]:
    with local_argo() as client:
        yield client


@contextmanager
def grpc_server(descriptors: int = CONNECTIONS * 2) -> Iterator[tuple[int, int]]:
    """A gRPC server of `rpc` in a process of its own: its pid and port."""
    command = [sys.executable, str(idle_server.__file__)]
    with few_descriptors(descriptors):
        server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with server:
        assert server.stdin is not None
        assert server.stdout is not None
        yield server.pid, int(server.stdout.readline())
        server.stdin.close()


def check_health(port: int) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        assert stub.Check(health_pb2.HealthCheckRequest(), timeout=10, wait_for_ready=True).status == 1


def call_nats(url: str) -> None:
    async def call() -> None:
        connection = await nats.connect(url, allow_reconnect=False, connect_timeout=10)
        await connection.jetstream(timeout=10).account_info()
        await connection.close()

    asyncio.run(call())


def call_s3(servers: Servers) -> None:
    store = servers.s3
    client = Minio(store.endpoint, store.access_key, store.secret_key, secure=False, region="us-east-1")
    assert client.bucket_exists(store.bucket)


HALF_A_HEAD = b"GET /api/v1/version HTTP/1.1\r\nHost: localhost\r\nX: "


@pytest.mark.parametrize("sent", [b"", HALF_A_HEAD], ids=["idle", "half a head"])
def test_the_local_argo_answers_behind_a_thousand_connections_and_closes_them(argo: Client, sent: bytes):
    port = int(argo.address.rsplit(":", 1)[1])
    with flood(port, sent) as connections:
        answers(lambda: argo.call("GET", "version"))
        until_true(lambda: sum(map(is_open, connections)) <= HttpLimits().max_waiting)
    assert argo.call("GET", "version")


def is_open(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(1) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


def test_the_local_argo_answers_while_others_open_connections_without_end(argo: Client):
    port = int(argo.address.rsplit(":", 1)[1])
    with flood(port, HALF_A_HEAD, 300):
        for _ in range(20):
            with flood(port, b"", 100):
                assert argo.call("GET", "version")


def test_a_client_of_the_local_argo_that_reads_no_answer_is_cut_off_or_waits_alone():
    with local_argo(http=HttpLimits(head_timeout=timedelta(seconds=1))) as client, client.connect() as greedy:
        head = (
            f"GET /api/v1/version HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {client.token}\r\n\r\n"
        )
        greedy.settimeout(1)
        with suppress(OSError):
            for _ in range(2000):
                greedy.sendall(head.encode() * 50)
        answers(lambda: client.call("GET", "version"))


@pytest.mark.parametrize(
    "sent", [b"", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])]
)
def test_grpc_answers_behind_a_thousand_connections(sent: bytes):
    with grpc_server() as (pid, port):
        check_health(port)
        before = psutil.Process(pid).memory_info().rss
        with flood(port, sent):
            answers(lambda: check_health(port))
            assert psutil.Process(pid).memory_info().rss - before < 64 * MIB
        check_health(port)


def test_grpc_without_descriptors_does_not_spin_and_goes_on_afterwards():
    with grpc_server(descriptors=200) as (pid, port):
        check_health(port)
        with flood(port, count=400):
            until_true(lambda: cpu_share(pid) < 0.5)  # a loop that spins never falls below
        check_health(port)


def test_the_local_argo_without_descriptors_does_not_spin_and_goes_on_afterwards(tmp_path: Path):
    argo = ArgoProcess(tmp_path / "home")
    try:
        with few_descriptors(100):
            client = argo.start()
        with flood(int(client.address.rsplit(":", 1)[1]), count=150):
            until_true(lambda: cpu_share(argo.pid) < 0.5)
        until(lambda: client.call("GET", "version"))
    finally:
        argo.stop()


def until(call: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while True:
        try:
            call()
        except (OSError, http.client.HTTPException):
            if time.monotonic() > end:
                raise
            time.sleep(0.1)
        else:
            return


def cpu_share(pid: int, seconds: float = 1) -> float:
    """Of one processor."""
    before = sum(psutil.Process(pid).cpu_times()[:2])
    time.sleep(seconds)
    return (sum(psutil.Process(pid).cpu_times()[:2]) - before) / seconds


@pytest.mark.parametrize("sent", [b"", b"CONN"], ids=["idle", "half a line"])
def test_nats_answers_behind_a_thousand_connections_and_closes_them(embedded: Servers, sent: bytes):
    port = urlsplit(embedded.nats_url).port
    assert port
    server = listening(port)
    before = server.memory_info().rss
    with flood(port, sent) as connections:
        answers(lambda: call_nats(embedded.nats_url))
        assert server.memory_info().rss - before < 64 * MIB
        until_true(lambda: sum(map(is_closed, connections)) == CONNECTIONS)
    call_nats(embedded.nats_url)


def is_closed(connection: socket.socket) -> bool:
    """Read up to the end: what NATS says first is its INFO, and last that the login took too long."""
    connection.setblocking(False)
    with suppress(BlockingIOError):
        try:
            while connection.recv(65536):
                pass
        except ConnectionError:
            return True
        else:
            return True
    return False


def until_true(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost: x\r\nX: "], ids=["idle", "half a head"])
def test_s3_answers_behind_a_thousand_connections(embedded: Servers, sent: bytes):
    port = int(embedded.s3.endpoint.rsplit(":", 1)[1])
    server = listening(port)
    before = server.memory_info().rss
    with flood(port, sent):
        answers(lambda: call_s3(embedded))
        assert server.memory_info().rss - before < 64 * MIB
    call_s3(embedded)


STOPPED = """
import asyncio, os, signal, sys, nats

async def main():
    closed = asyncio.Event()
    async def close(): closed.set()
    connection = await nats.connect(sys.argv[1], allow_reconnect=False, closed_cb=close)
    async def ignore(message): pass
    await connection.subscribe("periplus.>", cb=ignore)
    await connection.flush()
    print("subscribed", flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)
    await closed.wait()
    print("closed", flush=True)

asyncio.run(main())
"""


async def test_a_subscriber_that_stops_reading_is_cut_off_and_others_get_every_event(embedded: Servers):
    """80 MiB: more than the sockets and what NATS keeps for one connection hold."""
    url = embedded.nats_url
    server = await asyncio.to_thread(lambda: listening(urlsplit(url).port or 0))
    stopped = subprocess.Popen([sys.executable, "-c", STOPPED, url], stdout=subprocess.PIPE)  # noqa: ASYNC220
    connection = await nats.connect(url)
    try:
        assert stopped.stdout is not None
        assert await asyncio.to_thread(stopped.stdout.readline) == b"subscribed\n"
        received = 0

        async def count(_: object) -> None:
            nonlocal received
            received += 1

        await connection.subscribe("periplus.dispatcher.slow.>", cb=count)
        jetstream = connection.jetstream(timeout=30)
        before = server.memory_info().rss
        for number in range(160):
            await jetstream.publish(f"periplus.dispatcher.slow.{number}", bytes(MIB // 2))
        async with asyncio.timeout(60):
            while received < 160:  # noqa: ASYNC110 - the subscription has no event
                await asyncio.sleep(0.05)
        assert server.memory_info().rss - before < 128 * MIB
        stopped.send_signal(signal.SIGCONT)
        assert await asyncio.to_thread(stopped.stdout.readline) == b"closed\n"
    finally:
        stopped.kill()
        stopped.wait()
        assert stopped.stdout is not None
        stopped.stdout.close()
        with contextlib.suppress(nats.errors.Error):
            await connection.jetstream().purge_stream("DISPATCHER", subject="periplus.dispatcher.slow.>")
        await connection.close()


async def test_a_durable_that_never_acknowledges_waits_alone(embedded: Servers):
    connection = await nats.connect(embedded.nats_url)
    jetstream = connection.jetstream(timeout=10)
    subject = "periplus.dispatcher.unacknowledged"
    try:
        for name, most in (("silent", 10), ("busy", 1000)):
            config = ConsumerConfig(
                durable_name=name,
                filter_subject=f"{subject}.>",
                ack_policy=AckPolicy.EXPLICIT,
                max_ack_pending=most,
            )
            await jetstream.add_consumer("DISPATCHER", config)
        for number in range(200):
            await jetstream.publish(f"{subject}.{number}", b"x")
        silent = await jetstream.pull_subscribe_bind("silent", "DISPATCHER")
        assert len(await silent.fetch(10, timeout=30)) == 10
        with pytest.raises(nats.errors.TimeoutError):
            await silent.fetch(1, timeout=0.5)
        busy = await jetstream.pull_subscribe_bind("busy", "DISPATCHER")
        handled = 0
        while handled < 200:
            for message in await busy.fetch(50, timeout=30):
                await message.ack()
                handled += 1
    finally:
        for name in ("silent", "busy"):
            with contextlib.suppress(nats.errors.Error):
                await jetstream.delete_consumer("DISPATCHER", name)
        await jetstream.purge_stream("DISPATCHER", subject=f"{subject}.>")
        await connection.close()
