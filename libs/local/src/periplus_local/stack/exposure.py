"""What the stack shows to another user of the machine, or to a web page, who has no secret.

Everything that listens is found in the system's own tables, not in our settings, and asked in the
ways that a stranger would: plain HTTP, HTTPS and gRPC without a certificate or a token.
"""

from __future__ import annotations

import http.client
import ipaddress
import ssl
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass

import grpc
import psutil

_REFUSALS = {400, 401, 403, 405, 407}
_REFUSED_CALLS = {
    grpc.StatusCode.UNAVAILABLE,  # no connection without a certificate
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.UNIMPLEMENTED,  # some other server's call
}
_TIMEOUT = 3.0

REQUESTS = (
    ("GET", "/"),
    ("GET", "/artifacts"),
    ("GET", "/artifacts/x"),
    ("PUT", "/artifacts/x"),
    ("DELETE", "/artifacts/x"),
    ("POST", "/"),
    ("PUT", "/buckets/artifacts/x"),
    ("GET", "/buckets/?pretty=y"),
    ("GET", "/dir/assign"),
    ("GET", "/dir/status"),
    ("GET", "/cluster/status"),
    ("GET", "/vol/grow?count=1"),
    ("GET", "/status"),
    ("GET", "/ui/index.html"),
    ("GET", "/metrics"),
    ("GET", "/debug/pprof/"),
    ("GET", "/varz"),
    ("GET", "/api/v1/version"),
    ("GET", "/api/v1/workflows/argo"),
    ("POST", "/api/v1/workflows/argo"),
)
"""What a stranger would try: our paths, and those of the servers that came with the stack."""

CALLS = (
    "/periplus.dispatcher.v1.DispatcherService/SubmitRun",
    "/periplus.dispatcher.v1.DispatcherService/ReadLogs",
    "/periplus.cache.v1.CacheService/InvalidateEntries",
    "/periplus.snapshotter.v1.SnapshotterService/TakeSnapshot",
    "/periplus.lineage.v1.LineageService/ListRuns",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    "/master_pb.Seaweed/Statistics",
    "/filer_pb.SeaweedFiler/ListEntries",
    "/filer_pb.SeaweedFiler/GetFilerConfiguration",
    "/volume_server_pb.VolumeServer/VolumeServerStatus",
    "/worker_pb.WorkerService/WorkerStream",
    "/messaging_pb.SeaweedS3IamCache/PutIdentity",
)


@dataclass(frozen=True)
class Listener:
    """A TCP port that a process listens on."""

    pid: int
    program: str
    host: str
    port: int

    @property
    def local(self) -> bool:
        """Whether only processes of this machine can reach it."""
        return ipaddress.ip_address(self.host).is_loopback


@dataclass(frozen=True)
class Answer:
    """A request without a secret that was not refused."""

    listener: Listener
    request: str
    told: str


def listeners(pids: Iterable[int]) -> list[Listener]:
    """Every TCP port that these processes and their descendants listen on."""
    processes = {process for pid in pids for process in family(pid)}
    found = [listener for process in processes for listener in _of(process)]
    return sorted(found, key=lambda listener: listener.port)


def _of(process: psutil.Process) -> list[Listener]:
    try:
        return [
            Listener(process.pid, process.name(), _host(open_.laddr.ip), open_.laddr.port)
            for open_ in process.net_connections(kind="tcp")
            if open_.status == psutil.CONN_LISTEN
        ]
    except psutil.NoSuchProcess:  # a short-lived one, such as a connection's to Postgres
        return []


def answers(listener: Listener) -> list[Answer]:
    """What this port answers to somebody without a secret; empty is well. Takes a second or two."""
    found = [*_http(listener, secure=False), *_http(listener, secure=True), *_grpc(listener)]
    return [Answer(listener, request, told) for request, told in found]


def _host(ip: str) -> str:
    """GRPC serves both families on one socket, where 127.0.0.1 is ::ffff:127.0.0.1."""
    return ip.removeprefix("::ffff:")


@dataclass(frozen=True)
class Memory:
    """Bytes of memory of a process and its descendants."""

    resident: int
    """Pages that several share count for each."""
    proportional: int
    """Shared pages count once; 0 where the system does not tell."""


def memory(pid: int) -> Memory:
    """The memory of a process and its descendants."""
    resident = proportional = 0
    for process in family(pid):
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            resident += process.memory_info().rss
            proportional += getattr(process.memory_full_info(), "pss", 0)
    return Memory(resident, proportional)


def family(pid: int) -> list[psutil.Process]:
    """A process and all its descendants that are alive; a process that is gone has none."""
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _http(listener: Listener, *, secure: bool) -> Iterator[tuple[str, str]]:
    scheme = "https" if secure else "http"
    for method, path in REQUESTS:
        connection: http.client.HTTPConnection
        if secure:
            unverified = ssl._create_unverified_context()  # noqa: S323, SLF001 - a stranger's view
            connection = http.client.HTTPSConnection(
                listener.host, listener.port, timeout=_TIMEOUT, context=unverified
            )
        else:
            connection = http.client.HTTPConnection(listener.host, listener.port, timeout=_TIMEOUT)
        try:
            connection.request(method, path, body=b"x" if method in ("PUT", "POST") else None)
            answer = connection.getresponse()
            status, body = answer.status, answer.read(1)
        except (OSError, http.client.HTTPException):
            continue  # refused below HTTP: not TLS, a certificate wanted, another protocol
        finally:
            connection.close()
        # That a store is up (its /status, an empty page) is no secret and cannot be switched off.
        up = method == "GET" and status == http.HTTPStatus.OK and not body
        if status not in _REFUSALS and not up:
            yield f"{scheme} {method} {path}", f"HTTP {status}"


def _grpc(listener: Listener) -> Iterator[tuple[str, str]]:
    options = (("grpc.enable_http_proxy", 0),)
    with grpc.insecure_channel(f"{listener.host}:{listener.port}", options) as channel:
        for name in CALLS:
            call = channel.stream_stream(
                name, request_serializer=lambda body: body, response_deserializer=lambda body: body
            )
            try:
                told = [len(body) for body in call(iter([b""]), timeout=_TIMEOUT)]
            except grpc.RpcError as error:
                code = error.code()
                if code not in _REFUSED_CALLS:
                    yield f"grpc {name}", code.name
            else:
                yield f"grpc {name}", f"{len(told)} messages"
