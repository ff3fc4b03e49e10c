"""Who calls: a bearer token on every RPC, and the permission that each RPC declares."""

import hmac
from collections.abc import Iterable

from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.descriptor_pb2 import MethodOptions

from periplus.auth.v1.permission_pb2 import permission
from periplus_common.errors import Unauthenticated

HEADER = "authorization"

# What anyone may call: whether a service is up is no secret, and probes hold no token.
OPEN = ("/grpc.health.v1.Health/",)


def metadata(token: str) -> tuple[tuple[str, str], ...]:
    """What a caller sends along."""
    return ((HEADER, f"Bearer {token}"),)


def check(method: str, sent: Iterable[tuple[str, str | bytes]], token: str) -> None:
    """Raise `Unauthenticated` unless `sent` shows the token or `method` is open to all."""
    if method.startswith(OPEN):
        return
    shown = next((value for key, value in sent if key == HEADER), "")
    expected = f"Bearer {token}".encode()
    if not hmac.compare_digest(shown.encode() if isinstance(shown, str) else shown, expected):
        raise Unauthenticated(
            "no valid token was shown",
            reason="TOKEN_INVALID",
            fix="call through the `periplus` command, which reads it from $PERIPLUS_HOME/client.json",
        )


def permissions(service: ServiceDescriptor) -> dict[str, str]:
    """The permission that each RPC of a service declares; empty text where it declares none."""
    found = {}
    for method in service.methods:
        options = method.GetOptions()
        assert isinstance(options, MethodOptions)
        found[method.name] = options.Extensions[permission]
    return found
