"""The embedded NATS server: its users, streams and process."""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import nats
from nats.errors import Error as NatsError

from periplus_common import tls
from periplus_common.streams import declare_streams
from periplus_local.stack import programs
from periplus_local.stack.home import Home, write_private
from periplus_local.stack.nats_rights import SUBSCRIBER, rights_of
from periplus_local.stack.ports import LOOPBACK
from periplus_local.stack.process import NotReadyError, ProcessSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from periplus_local.stack.tls_pair import TlsPair

ADMINISTRATOR = "periplus"
_MIB = 1024 * 1024


@dataclass(frozen=True)
class Nats:
    """The server's port, and the passwords of the administrator, the subscriber and each service.

    `tls_pair`: for TLS, with the handshake first; None for none.
    """

    port: int
    password: str
    subscriber: str
    services: Mapping[str, str] = field(default_factory=dict)
    """Password by service. `nats_rights` says what each may do."""
    tls_pair: TlsPair | None = None

    @property
    def ca_file(self) -> str:
        """The file with its certificate's authority; empty without TLS."""
        return str(self.tls_pair.certificate) if self.tls_pair else ""

    @property
    def url(self) -> str:
        """The URL with the credentials of the administrator, who may do everything."""
        return self._url(ADMINISTRATOR, self.password)

    @property
    def subscriber_url(self) -> str:
        """The URL with the credentials of the subscriber, who may receive every event and publish none."""
        return self._url(SUBSCRIBER, self.subscriber)

    def url_of(self, service: str) -> str:
        """The URL with the credentials of a service."""
        return self._url(service, self.services[service])

    def _url(self, user: str, password: str) -> str:
        scheme = "tls" if self.tls_pair else "nats"
        return f"{scheme}://{user}:{password}@{LOOPBACK}:{self.port}"


def spec(home: Home, server: Nats, *, durable: bool = True) -> ProcessSpec:
    """The process of NATS. `durable`: an acknowledged message survives a power failure."""
    settings = home.run / "nats.json"
    return ProcessSpec(
        name="nats",
        command=(str(programs.nats_server()), "--config", str(settings)),
        directory=home.data / "nats",
        prepare=partial(_write_settings, home, server, durable),
        ready=partial(_ready, server),
        provision=partial(declare_streams, server.url, server.ca_file),
        env={"GOMEMLIMIT": "256MiB"},
        address=f"{LOOPBACK}:{server.port}",
    )


async def _write_settings(home: Home, server: Nats, durable: bool) -> None:
    settings: dict[str, object] = {
        "server_name": "periplus",
        "listen": f"{LOOPBACK}:{server.port}",
        "authorization": {"users": _users(server)},
        "max_payload": _MIB,
        # A client that does not read what it is sent is cut off, here or after the deadline.
        "max_pending": 16 * _MIB,
        "write_deadline": "5s",
        "max_subscriptions": 1000,
        "jetstream": {
            "store_dir": ".",
            "max_memory_store": 16 * _MIB,
            "max_file_store": 16 * 1024 * _MIB,
            # With the default an acknowledged message may be in the system's cache alone for two minutes.
            "sync_interval": "always" if durable else "2m",
        },
    }
    if server.tls_pair:
        settings["tls"] = _tls(home, server.tls_pair)
    write_private(home.run / "nats.json", json.dumps(settings, indent=2))


def _tls(home: Home, own: TlsPair) -> dict[str, object]:
    # Relative to its working directory: its syntax has no escapes for most characters of a path.
    certificate, key = (os.path.relpath(path, home.data / "nats") for path in (own.certificate, own.key))
    return {"cert_file": certificate, "key_file": key, "handshake_first": True}


def _users(server: Nats) -> list[dict[str, object]]:
    users: list[dict[str, object]] = [{"user": ADMINISTRATOR, "password": server.password}]
    for user, password in {SUBSCRIBER: server.subscriber, **server.services}.items():
        users.append({"user": user, "password": password, "permissions": rights_of(user).permissions()})
    return users


async def _ready(server: Nats) -> None:
    try:
        # Checked first, because the client waits two seconds after a refused connection.
        _, writer = await asyncio.open_connection(LOOPBACK, server.port)
        writer.close()
        connection = await nats.connect(
            server.url,
            connect_timeout=1,
            allow_reconnect=False,
            max_reconnect_attempts=1,
            error_cb=_ignore,
            **tls.nats_options(server.url, server.ca_file),
        )
    except (NatsError, OSError) as error:
        raise NotReadyError(str(error) or type(error).__name__) from error
    try:
        await connection.jetstream(timeout=1).account_info()
    except (NatsError, TimeoutError) as error:
        raise NotReadyError(f"JetStream: {error}") from error
    finally:
        await connection.close()


async def _ignore(_: Exception) -> None:
    """The same error is raised by `connect`."""
