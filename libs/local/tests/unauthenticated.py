"""What a port of the stack answers to a client without a secret: another user of the machine, or a web page.

Each port is sent plain HTTP, HTTPS and gRPC without a certificate or a token.
"""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Iterator
from dataclasses import dataclass

import grpc

from periplus_local.stack.process_info import Listener

_REFUSALS = {400, 401, 403, 405, 407}
_REFUSED_CALLS = {
    grpc.StatusCode.UNAVAILABLE,  # no connection without a certificate
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.UNIMPLEMENTED,  # a call of another server
}
_TIMEOUT_SECONDS = 3.0

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
"""Paths of our own, and of the servers that the stack embeds."""

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
class Answer:
    """A request without a secret that was not refused."""

    listener: Listener
    request: str
    status: str


def answers(listener: Listener) -> list[Answer]:
    """The requests that this port does not refuse to a client without a secret. Takes a second or two."""
    target = f"{listener.host}:{listener.port}"
    found = [*_http(listener, secure=False), *_http(listener, secure=True), *calls_answered(target)]
    return [Answer(listener, request, status) for request, status in found]


def _http(listener: Listener, *, secure: bool) -> Iterator[tuple[str, str]]:
    scheme = "https" if secure else "http"
    for method, path in REQUESTS:
        connection: http.client.HTTPConnection
        if secure:
            unverified = ssl._create_unverified_context()
            connection = http.client.HTTPSConnection(
                listener.host, listener.port, timeout=_TIMEOUT_SECONDS, context=unverified
            )
        else:
            connection = http.client.HTTPConnection(listener.host, listener.port, timeout=_TIMEOUT_SECONDS)
        try:
            connection.request(method, path, body=b"x" if method in ("PUT", "POST") else None)
            answer = connection.getresponse()
            status, body = answer.status, answer.read(1)
        except (OSError, http.client.HTTPException):
            continue  # refused below HTTP: no TLS, a certificate required, or another protocol
        finally:
            connection.close()
        # That a store is running (its /status, an empty page) is no secret and can not be switched off.
        up = method == "GET" and status == http.HTTPStatus.OK and not body
        if status not in _REFUSALS and not up:
            yield f"{scheme} {method} {path}", f"HTTP {status}"


def calls_answered(target: str) -> Iterator[tuple[str, str]]:
    """The gRPC calls, and their outcomes, that a server does not refuse to a client without a token."""
    options = (("grpc.enable_http_proxy", 0),)
    with grpc.insecure_channel(target, options) as channel:
        for name in CALLS:
            call = channel.stream_stream(
                name, request_serializer=lambda body: body, response_deserializer=lambda body: body
            )
            try:
                received = [len(body) for body in call(iter([b""]), timeout=_TIMEOUT_SECONDS)]
            except grpc.RpcError as error:
                code = error.code()
                if code not in _REFUSED_CALLS:
                    yield f"grpc {name}", code.name
            else:
                yield f"grpc {name}", f"{len(received)} messages"
