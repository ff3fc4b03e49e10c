"""Connections to registries: to a public address that the host's name was resolved to, and that was checked."""

import asyncio
import ipaddress
import socket
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from datetime import timedelta

import httpcore

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
MAX_ADDRESSES = 8


class CheckedNetwork(httpcore.AsyncNetworkBackend):
    """Connects only to public addresses, except for the hosts ("name:port") of `private`.

    The connection is made to the address that was checked, so that another answer of DNS in between changes nothing.
    """

    def __init__(self, private: AbstractSet[str], connect_timeout: timedelta) -> None:
        self._private = private
        self._timeout = connect_timeout.total_seconds()
        self._network = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109, ARG002 - of the base class
        local_address: str | None = None,  # noqa: ARG002
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        try:
            async with asyncio.timeout(self._timeout):
                found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except TimeoutError as error:
            raise httpcore.ConnectTimeout(f"{host} is not resolved within {self._timeout:g} s") from error
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(f"{host} can not be resolved: {error}") from error
        addresses = list(dict.fromkeys(str(info[4][0]) for info in found))[:MAX_ADDRESSES]
        if f"{host}:{port}" not in self._private:
            for address in addresses:
                if not is_public(address):
                    raise httpcore.ConnectError(f"{host} has the address {address}, which is not public")
        failure: Exception = httpcore.ConnectError(f"{host} has no address")
        for address in addresses:
            try:
                return await self._network.connect_tcp(
                    address, port, timeout=self._timeout, socket_options=socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public Internet; of one that stands for an IPv4 address, whether that is."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour or (found.teredo[1] if found.teredo else None)
        if found in _NAT64:
            inner = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
    return found.is_global and not found.is_multicast and not found.is_reserved
