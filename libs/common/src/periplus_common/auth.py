"""A bearer token on every RPC, and the permission that each RPC declares."""

import hmac
from collections.abc import Iterable

from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.descriptor_pb2 import MethodOptions

from periplus.auth.v1.permission_pb2 import permission
from periplus_common.errors import Unauthenticated

HEADER = "authorization"


def metadata(token: str) -> tuple[tuple[str, str], ...]:
    """The metadata that authenticates a call."""
    return ((HEADER, f"Bearer {token}"),)


def check(received: Iterable[tuple[str, str | bytes]], token: str) -> None:
    """Raise `Unauthenticated` unless the received metadata has the token."""
    credentials = next((value for key, value in received if key == HEADER), "")
    expected = f"Bearer {token}".encode()
    if not hmac.compare_digest(
        credentials.encode() if isinstance(credentials, str) else credentials, expected
    ):
        raise Unauthenticated(
            "the call has no valid token",
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
