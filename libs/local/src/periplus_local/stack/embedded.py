"""The three embedded servers of a home: their ports, secrets and processes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from periplus_local.stack import lock, nats, ports, postgres, s3
from periplus_local.stack.nats import Nats
from periplus_local.stack.postgres import Postgres
from periplus_local.stack.s3 import S3
from periplus_local.stack.tls_pair import tls_pair

if TYPE_CHECKING:
    from collections.abc import Mapping

    from periplus_local.stack.home import Home
    from periplus_local.stack.process import ProcessSpec

SERVICES = ("cache", "snapshotter", "lineage", "dispatcher")
"""The services; each has a role and a schema of its name."""

_PORTS = ("nats", *s3.PORTS)


@dataclass(frozen=True)
class Embedded:
    """The addresses and the secrets of the servers."""

    nats: Nats
    postgres: Postgres
    s3: S3


def embedded(home: Home, *, tls: bool = True) -> Embedded:
    """The home's servers, with the ports and secrets of the last start or new ones. The home must exist.

    Tests of what is behind the connections may ask for NATS and S3 without TLS. Where another process runs this home's stack, these are the servers that it runs.
    """
    holder = lock.holder(home)
    running = recorded(home) if holder and holder.pid != os.getpid() else None
    return running or _at(home, ports.assign(home.run / "ports.json", _PORTS, above=s3.ABOVE), tls=tls)


def recorded(home: Home) -> Embedded | None:
    """The servers as they were last started, whether they run or not; None if they never were started."""
    chosen = ports.recorded(home.run / "ports.json")
    return _at(home, chosen) if set(_PORTS) <= set(chosen) else None


def _at(home: Home, chosen: Mapping[str, int], *, tls: bool = True) -> Embedded:
    return Embedded(
        nats=Nats(
            chosen["nats"],
            home.secret("nats"),
            home.secret("nats-subscriber"),
            {service: home.secret(f"nats-{service}") for service in SERVICES},
            tls_pair(home) if tls else None,
        ),
        postgres=Postgres(
            home.data / "postgres",
            home.secret("postgres"),
            {service: home.secret(f"postgres-{service}") for service in SERVICES},
        ),
        s3=s3.store(home, chosen, tls=tls),
    )


def specs(home: Home, servers: Embedded, *, durable: bool = True) -> list[ProcessSpec]:
    """The processes of the servers; they start at the same time.

    Tests that need no data after a power failure may ask for less than `durable`.
    """
    return [
        s3.spec(home, servers.s3),
        postgres.spec(home, servers.postgres, durable=durable),
        nats.spec(home, servers.nats, durable=durable),
    ]
