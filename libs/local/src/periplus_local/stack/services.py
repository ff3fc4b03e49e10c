"""The services and the local Argo of a home, as parts: what each is told and needs."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from periplus_common.postgres import migrate
from periplus_local.argo import credential
from periplus_local.stack import argo, ports
from periplus_local.stack.argo import Argo
from periplus_local.stack.embedded import SERVICES, Embedded
from periplus_local.stack.health import serving
from periplus_local.stack.part import Part
from periplus_local.stack.ports import LOOPBACK

if TYPE_CHECKING:
    from collections.abc import Mapping

    from periplus_local.stack.cluster import Cluster
    from periplus_local.stack.home import Home

ARGO_NAMESPACE = "argo"
_READ_OBJECTS = {"cache", "snapshotter"}
"""The services that get the keys of the object store."""


@dataclass(frozen=True)
class Services:
    """The addresses (host:port) of the services, their secret, and the local Argo."""

    addresses: Mapping[str, str]
    token: str
    argo: Argo
    cluster: Cluster | None = None
    """The Argo and the store to use instead of the local ones."""

    def client_settings(self, events: str) -> dict[str, str]:
        """What the command line needs to speak to this stack, and a subscriber to hear its events."""
        return {**self.addresses, "token": self.token, "project": "default", "events": events}


def services(home: Home, cluster: Cluster | None = None) -> Services:
    """Choose addresses and make tokens, or find those of the last time. The home must exist."""
    chosen = ports.assign(home.run / "ports.json", (*SERVICES, "argo"))
    token_file = home.secrets / "argo-token"
    credential.kept(token_file)
    return Services(
        addresses={name: f"{LOOPBACK}:{chosen[name]}" for name in SERVICES},
        token=home.secret("token"),
        argo=Argo(chosen["argo"], token_file),
        cluster=cluster,
    )


def parts(home: Home, servers: Embedded, told: Services) -> list[Part]:
    """A migration and a service each, and the local Argo."""
    listed = [] if told.cluster else [argo.part(home, told.argo, servers.s3.bucket, uses=("s3",))]
    for name in SERVICES:
        env = environment(servers, told, name)
        listed += [_migration(home, servers, name), _service(home, told, name, env)]
    return listed


def _migration(home: Home, servers: Embedded, name: str) -> Part:
    """What `python -m periplus_<service> migrate` does, without the seconds of four interpreters."""
    return Part(
        name=f"{name}-migrate",
        command=(),
        directory=home.run,
        after=("postgres",),
        once=True,
        provision=partial(_migrate, servers.postgres.dsn(name), name),
    )


async def _migrate(dsn: str, service: str) -> None:
    await migrate(dsn, "periplus_common", f"periplus_{service}")


def _service(home: Home, told: Services, name: str, env: Mapping[str, str]) -> Part:
    return Part(
        name=name,
        command=(sys.executable, "-m", f"periplus_{name}"),
        directory=home.run,
        after=("nats", f"{name}-migrate"),
        uses=_uses(told, name),
        env=env,
        ready=partial(serving, told.addresses[name]),
        address=told.addresses[name],
        grace=20.0,
    )


def _uses(told: Services, name: str) -> tuple[str, ...]:
    if name != "dispatcher":
        return ("s3",)
    return ("s3", "cache", "snapshotter", *(() if told.cluster else ("argo",)))


def environment(servers: Embedded, told: Services, name: str) -> dict[str, str]:
    """The settings of a service, as the environment variables it reads."""
    prefix = f"{name.upper()}_"
    bucket = told.cluster.bucket if told.cluster else servers.s3.bucket
    settings = {
        f"{prefix}POSTGRES_DSN": servers.postgres.dsn(name),
        f"{prefix}NATS_URL": servers.nats.url_of(name),
        f"{prefix}TOKEN": told.token,
        f"{prefix}GRPC_ADDRESS": told.addresses[name],
        **(bucket.settings(prefix) if name in _READ_OBJECTS else bucket.location(prefix)),
    }
    if name == "dispatcher":
        local = {
            f"{prefix}ARGO_URL": told.argo.url,
            f"{prefix}ARGO_TOKEN": told.argo.token,
            f"{prefix}ARGO_NAMESPACE": ARGO_NAMESPACE,
        }
        settings |= told.cluster.argo(prefix) if told.cluster else local
        settings |= {
            f"{prefix}CACHE_ADDRESS": told.addresses["cache"],
            f"{prefix}SNAPSHOTTER_ADDRESS": told.addresses["snapshotter"],
        }
    return settings
