"""The services and the local Argo of a home: their addresses, settings and processes."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from periplus_common.postgres import migrate
from periplus_common.unix_socket import PREFIX
from periplus_local.argo.token_file import read_or_create
from periplus_local.stack import argo
from periplus_local.stack.argo import Argo
from periplus_local.stack.embedded import SERVICES, Embedded
from periplus_local.stack.health import serving
from periplus_local.stack.process import ProcessSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from periplus_local.stack.cluster import Cluster
    from periplus_local.stack.home import Home
    from periplus_local.stack.nats import Nats

ARGO_NAMESPACE = "argo"
_KEY_FORMAT = "projects/{{workflow.labels.periplus.dev/project}}/{{workflow.name}}/{{pod.name}}"
"""Where Argo stores artifacts: the dispatcher lets a project name only objects below its own prefix."""
_CONFIG_VERSION_KEY = "DISPATCHER_CONFIG_VERSION_KEY"
_READ_OBJECTS = {"cache", "snapshotter"}
"""The services that get the keys of the object store."""


@dataclass(frozen=True)
class Services:
    """The addresses (unix:/path) of the services, their secret, and the local Argo."""

    addresses: Mapping[str, str]
    token: str
    argo: Argo
    otlp_endpoint: str = ""
    """The OpenTelemetry collector that the services export to, as $PERIPLUS_OTLP_ENDPOINT says; none if empty."""
    cluster: Cluster | None = None
    """The Argo and the store to use instead of the local ones."""
    config_version_key: str = ""
    """What the dispatcher makes versions of Secrets and ConfigMaps with. Unlike the tokens it outlives a start: entries have them."""

    def client_settings(self, nats: Nats) -> dict[str, str]:
        """What the `periplus` command reads: addresses and token; and what subscribers to events need."""
        events = {"events": nats.subscriber_url, "events_ca_file": nats.ca_file}
        return {**self.addresses, "token": self.token, "project": "default", **events}


def assign(home: Home, cluster: Cluster | None = None) -> Services:
    """The home's services, with new tokens: whoever has those of the last start can do nothing with them.

    The home must exist, and its lock be held.
    """
    token_file = home.secrets / "argo-token"
    token_file.unlink(missing_ok=True)
    read_or_create(token_file)
    return Services(
        addresses={name: f"{PREFIX}{home.run / name}.sock" for name in SERVICES},
        token=home.new_secret("token"),
        argo=Argo(home.run / "argo.sock", token_file),
        otlp_endpoint=os.environ.get("PERIPLUS_OTLP_ENDPOINT", ""),
        cluster=cluster,
        config_version_key=os.environ.get(_CONFIG_VERSION_KEY) or home.secret("config-version-key"),
    )


def specs(home: Home, servers: Embedded, services: Services) -> list[ProcessSpec]:
    """A migration and a process for each service, and the local Argo unless there is a cluster."""
    listed = (
        []
        if services.cluster
        else [
            argo.spec(
                home,
                services.argo,
                servers.s3.bucket_of("argo"),
                stops_before=("s3",),
                key_format=_KEY_FORMAT,
            )
        ]
    )
    for name in SERVICES:
        listed += [_migration(home, servers, name), _service(home, servers, services, name)]
    return listed


def _migration(home: Home, servers: Embedded, name: str) -> ProcessSpec:
    """Does what `python -m periplus_<service> migrate` does, in this process: four interpreters take seconds."""
    return ProcessSpec(
        name=f"{name}-migrate",
        command=(),
        directory=home.run,
        depends_on=("postgres",),
        is_job=True,
        provision=partial(_migrate, servers.postgres.dsn(name), name),
    )


async def _migrate(dsn: str, service: str) -> None:
    await migrate(dsn, "periplus_common", f"periplus_{service}")


def _service(home: Home, servers: Embedded, services: Services, name: str) -> ProcessSpec:
    return ProcessSpec(
        name=name,
        command=(sys.executable, "-m", f"periplus_{name}"),
        directory=home.run,
        depends_on=("nats", f"{name}-migrate"),
        stops_before=_stopped_after(services, name),
        env=environment(servers, services, name),
        secrets=secrets(servers, services, name),
        ready=partial(serving, services.addresses[name]),
        address=services.addresses[name],
        stop_timeout_seconds=20.0,
    )


def _stopped_after(services: Services, name: str) -> tuple[str, ...]:
    if name != "dispatcher":
        return ("s3",)
    return ("s3", "cache", "snapshotter", *(() if services.cluster else ("argo",)))


def environment(servers: Embedded, services: Services, name: str) -> dict[str, str]:
    """The settings of a service that are not secret, as the environment variables that it reads.

    The user's own variables for the service (`DISPATCHER_GATE_SECONDS=5 periplus up`) go with them, but for what the stack decides.
    """
    prefix = f"{name.upper()}_"
    secret = secrets(servers, services, name)
    chosen = {k: v for k, v in os.environ.items() if k.startswith(prefix) and k not in secret}
    bucket = services.cluster.bucket if services.cluster else servers.s3.bucket
    settings = {
        f"{prefix}NATS_CA_FILE": servers.nats.ca_file,
        f"{prefix}GRPC_ADDRESS": services.addresses[name],
        f"{prefix}OTLP_ENDPOINT": services.otlp_endpoint,
        **(bucket.connection(prefix) if name in _READ_OBJECTS else bucket.location(prefix)),
    }
    if name == "dispatcher":
        local = {
            f"{prefix}ARGO_URL": services.argo.url,
            f"{prefix}ARGO_NAMESPACE": ARGO_NAMESPACE,
            f"{prefix}STEPS_ARE_PROCESSES": "true",
        }
        if not services.cluster:
            # One person's manifests may name any object but those of another project.
            chosen = {f"{prefix}WRITABLE_KEYS": "*", **chosen}
        settings |= services.cluster.argo(prefix) if services.cluster else local
        settings |= {
            f"{prefix}CACHE_ADDRESS": services.addresses["cache"],
            f"{prefix}SNAPSHOTTER_ADDRESS": services.addresses["snapshotter"],
            f"{prefix}LINEAGE_ADDRESS": services.addresses["lineage"],
        }
    return chosen | settings


def secrets(servers: Embedded, services: Services, name: str) -> dict[str, str]:
    """The settings of a service that give access, by the variables that would otherwise hold them."""
    prefix = f"{name.upper()}_"
    settings = {
        f"{prefix}POSTGRES_DSN": servers.postgres.dsn(name),
        f"{prefix}NATS_URL": servers.nats.url_of(name),
        f"{prefix}TOKEN": services.token,
    }
    if name in _READ_OBJECTS:
        settings |= (services.cluster.bucket if services.cluster else servers.s3.bucket_of(name)).keys(prefix)
    if name == "dispatcher":
        settings[f"{prefix}ARGO_TOKEN"] = services.cluster.token if services.cluster else services.argo.token
        settings[_CONFIG_VERSION_KEY] = services.config_version_key
    return settings
