"""The three embedded servers of a home: their ports and secrets, and them as parts."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from periplus_local.stack import lock, nats, ports, postgres, s3
from periplus_local.stack.nats import Nats
from periplus_local.stack.postgres import Postgres
from periplus_local.stack.s3 import S3

if TYPE_CHECKING:
    from collections.abc import Mapping

    from periplus_local.stack.home import Home
    from periplus_local.stack.part import Part

SERVICES = ("cache", "snapshotter", "lineage", "dispatcher")
"""The services; each has a role and a schema of its name."""

_PORTS = ("nats", "postgres", *s3.PORTS)


@dataclass(frozen=True)
class Embedded:
    """Where the servers are and what they ask for."""

    nats: Nats
    postgres: Postgres
    s3: S3


def embedded(home: Home) -> Embedded:
    """Choose ports and make secrets, or find those of the last time. The home must exist.

    Where another process runs this home's stack, these are the servers that it runs.
    """
    holder = lock.holder(home)
    running = recorded(home) if holder and holder.pid != os.getpid() else None
    return running or _at(home, ports.assign(home.run / "ports.json", _PORTS, above=s3.ABOVE))


def recorded(home: Home) -> Embedded | None:
    """The servers as they were last started, whether they run or not; None if they never were."""
    chosen = ports.recorded(home.run / "ports.json")
    return _at(home, chosen) if set(_PORTS) <= set(chosen) else None


def _at(home: Home, chosen: Mapping[str, int]) -> Embedded:
    return Embedded(
        nats=Nats(
            chosen["nats"],
            home.secret("nats"),
            home.secret("nats-subscriber"),
            {service: home.secret(f"nats-{service}") for service in SERVICES},
        ),
        postgres=Postgres(
            chosen["postgres"],
            home.secret("postgres"),
            {service: home.secret(f"postgres-{service}") for service in SERVICES},
        ),
        s3=s3.store(home, chosen),
    )


def parts(home: Home, servers: Embedded, *, durable: bool = True) -> list[Part]:
    """The servers as parts; they need nothing and start together."""
    return [
        s3.part(home, servers.s3),
        postgres.part(home, servers.postgres, durable=durable),
        nats.part(home, servers.nats, durable=durable),
    ]
