"""The services and the local Argo of a home, as parts: what each is told and needs."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from periplus_common.postgres import migrate
from periplus_local.stack import ports
from periplus_local.stack.embedded import SERVICES, Embedded
from periplus_local.stack.health import answering, serving
from periplus_local.stack.part import Part
from periplus_local.stack.ports import LOOPBACK

if TYPE_CHECKING:
    from collections.abc import Mapping

    from periplus_local.stack.cluster import Cluster
    from periplus_local.stack.home import Home

ARGO_NAMESPACE = "argo"


@dataclass(frozen=True)
class Services:
    """The addresses (host:port) of the services and of the local Argo, and their secrets."""

    addresses: Mapping[str, str]
    token: str
    argo_address: str
    argo_token: str
    cluster: Cluster | None = None
    """The Argo and the store to use instead of the local ones."""

    @property
    def argo_url(self) -> str:
        """Where the local Argo's REST API is."""
        return f"http://{self.argo_address}"

    def client_settings(self) -> dict[str, str]:
        """What the command line needs to speak to this stack."""
        return {**self.addresses, "token": self.token, "project": "default"}


def services(home: Home, cluster: Cluster | None = None) -> Services:
    """Choose addresses and make tokens, or find those of the last time. The home must exist."""
    chosen = ports.assign(home.run / "ports.json", (*SERVICES, "argo"))
    return Services(
        addresses={name: f"{LOOPBACK}:{chosen[name]}" for name in SERVICES},
        token=home.secret("token"),
        argo_address=f"{LOOPBACK}:{chosen['argo']}",
        argo_token=home.secret("argo-token"),
        cluster=cluster,
    )


def parts(home: Home, servers: Embedded, told: Services) -> list[Part]:
    """A migration and a service each, and the local Argo."""
    listed = [] if told.cluster else [_argo(home, servers, told)]
    for name in SERVICES:
        env = environment(servers, told, name)
        listed += [_migration(home, servers, name), _service(home, told, name, env)]
    return listed


def _argo(home: Home, servers: Embedded, told: Services) -> Part:
    return Part(
        name="argo",
        command=(sys.executable, "-m", "periplus_local.argo"),
        directory=home.data / "argo",
        uses=("s3",),
        env={
            "ARGO_HOME": str(home.data / "argo"),
            "ARGO_PORT": told.argo_address.rpartition(":")[2],
            "ARGO_TOKEN": told.argo_token,
            "ARGO_SLOTS": str(os.cpu_count() or 1),
            **_store(servers, "ARGO_"),
        },
        ready=partial(answering, told.argo_address, "/api/v1/version", told.argo_token),
        address=told.argo_address,
        grace=15.0,
    )


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
    settings = {
        f"{prefix}POSTGRES_DSN": servers.postgres.dsn(name),
        f"{prefix}NATS_URL": servers.nats.url_of(name),
        f"{prefix}TOKEN": told.token,
        f"{prefix}GRPC_ADDRESS": told.addresses[name],
        **(told.cluster.store(prefix) if told.cluster else _store(servers, prefix)),
    }
    if name == "dispatcher":
        local = {
            f"{prefix}ARGO_URL": told.argo_url,
            f"{prefix}ARGO_TOKEN": told.argo_token,
            f"{prefix}ARGO_NAMESPACE": ARGO_NAMESPACE,
        }
        settings |= told.cluster.argo(prefix) if told.cluster else local
        settings |= {
            f"{prefix}CACHE_ADDRESS": told.addresses["cache"],
            f"{prefix}SNAPSHOTTER_ADDRESS": told.addresses["snapshotter"],
        }
    return settings


def _store(servers: Embedded, prefix: str) -> dict[str, str]:
    return {
        f"{prefix}S3_ENDPOINT": servers.s3.endpoint,
        f"{prefix}S3_ACCESS_KEY": servers.s3.access_key,
        f"{prefix}S3_SECRET_KEY": servers.s3.secret_key,
        f"{prefix}S3_BUCKET": servers.s3.bucket,
    }
