"""What a gRPC server accepts: the sizes of messages, and how much callers may use of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pb2 import MethodOptions

from periplus.limits.v1 import message_size_pb2

DEFAULT_REQUEST_BYTES = 4 << 20  # of an RPC whose proto says nothing else
MAX_MESSAGE_BYTES = 32 << 20  # of any response, and of the requests of some RPCs


@dataclass(frozen=True, kw_only=True)
class ServerLimits:
    """What callers may use of a server. `docs/limits.md` has the table.

    `call_timeout` is a unary call's, and the most that its client may ask for. `write_timeout` is how long a client may
    take to read a message of a stream. `connection_age` and `connection_idle` make clients connect anew, so that
    they find new replicas; calls have `connection_grace` to end.
    """

    call_timeout: timedelta = timedelta(seconds=60)
    write_timeout: timedelta = timedelta(seconds=60)
    handshake_timeout: timedelta = timedelta(seconds=10)
    connection_age: timedelta = timedelta(minutes=10)
    connection_grace: timedelta = timedelta(hours=1)
    connection_idle: timedelta = timedelta(minutes=10)
    min_ping_interval: timedelta = timedelta(minutes=5)
    max_calls: int = 1000
    max_streams_per_connection: int = 100
    max_metadata_bytes: int = 16 << 10

    def options(self, services: Sequence[str]) -> list[tuple[str, int]]:
        """The options of a gRPC server with these services, by full name."""
        methods = (f"/{method}" for service in services for method in _methods(service))
        return [
            (
                "grpc.max_receive_message_length",
                max(map(max_request_bytes, methods), default=DEFAULT_REQUEST_BYTES),
            ),
            ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_concurrent_streams", self.max_streams_per_connection),
            ("grpc.max_metadata_size", self.max_metadata_bytes),
            ("grpc.absolute_max_metadata_size", self.max_metadata_bytes),
            ("grpc.server_handshake_timeout_ms", _milliseconds(self.handshake_timeout)),
            ("grpc.max_connection_age_ms", _milliseconds(self.connection_age)),
            ("grpc.max_connection_age_grace_ms", _milliseconds(self.connection_grace)),
            ("grpc.max_connection_idle_ms", _milliseconds(self.connection_idle)),
            ("grpc.http2.min_ping_interval_without_data_ms", _milliseconds(self.min_ping_interval)),
            ("grpc.http2.max_ping_strikes", 2),
            (
                "grpc.so_reuseport",
                0,
            ),  # a second process on our port is an error, and gets no share of the calls
        ]


DEFAULT_LIMITS = ServerLimits()


def max_request_bytes(method: str) -> int:
    """What the proto of an RPC, "/package.Service/Method", allows."""
    try:
        found = descriptor_pool.Default().FindMethodByName(method.removeprefix("/").replace("/", "."))
    except KeyError:  # of no proto: an RPC of gRPC's own
        return DEFAULT_REQUEST_BYTES
    options = found.GetOptions()
    assert isinstance(options, MethodOptions)
    return options.Extensions[message_size_pb2.max_request_bytes] or DEFAULT_REQUEST_BYTES


def _methods(service: str) -> list[str]:
    """The full names of a service's RPCs, "package.Service/Method"."""
    try:
        found = descriptor_pool.Default().FindServiceByName(service)
    except KeyError:  # of a test
        return []
    return [f"{service}/{method.name}" for method in found.methods]


def _milliseconds(duration: timedelta) -> int:
    return round(duration / timedelta(milliseconds=1))
