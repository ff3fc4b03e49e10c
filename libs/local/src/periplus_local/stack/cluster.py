"""An Argo and an artifact repository that run elsewhere, for `periplus up --cluster`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from periplus_local.stack.bucket import Bucket

if TYPE_CHECKING:
    from collections.abc import Mapping

_REPOSITORY = ("S3_ENDPOINT", "S3_ACCESS_KEY", "S3_SECRET_KEY", "S3_BUCKET")
_REGISTRIES = (
    "REGISTRIES",
    "PRIVATE_REGISTRIES",
    "PLAIN_REGISTRIES",
    "REGISTRY_TOKEN_HOSTS",
    "REGISTRY_DOCKER_CONFIG",
    "REGISTRY_CA_FILE",
    "REGISTRY_SECONDS",
    "REGISTRY_KEEP_SECONDS",
    "IMAGE_PLATFORM",
)
_REQUIRED = ("ARGO_SERVER", "ARGO_NAMESPACE", *_REPOSITORY)


class NoClusterError(Exception):
    """Environment variables that name the cluster are not set; the message names them."""


@dataclass(frozen=True)
class Cluster:
    """An Argo server and its artifact repository. `token` is empty for an Argo that requires none."""

    server: str
    token: str
    namespace: str
    bucket: Bucket
    immutable_image_prefixes: str = ""
    """Prefixes of images that never change under their tags, separated by commas: others are cached by digest only."""
    readable_keys: str = ""
    """Objects that manifests of every project may read, separated by commas."""
    writable_keys: str = ""
    """Objects that manifests of every project may read and write."""
    ca_file: str = ""
    """The authorities that may have signed the Argo server's certificate; the system's if it is empty."""
    image_policy: str = ""
    """What is done with images that are named by a tag; the dispatcher's default if it is empty."""
    registries: Mapping[str, str] = field(default_factory=dict)
    """The settings of the snapshotter that name registries, without their prefix."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Cluster:
        """The cluster that ARGO_SERVER, ARGO_TOKEN, ARGO_NAMESPACE and S3_* name; those of Argo are the ones that its own client reads.

        DISPATCHER_IMMUTABLE_IMAGE_PREFIXES, _READABLE_KEYS, _WRITABLE_KEYS, _ARGO_CA_FILE and _IMAGE_POLICY are passed on
        to the dispatcher, and SNAPSHOTTER_REGISTRIES with its kin to the snapshotter; S3_CA_FILE has the authorities of an
        https S3_ENDPOINT.
        Raises NoClusterError.
        """
        missing = [name for name in _REQUIRED if not environment.get(name)]
        if missing:
            raise NoClusterError(
                f"set {', '.join(missing)}: they name the Argo and the artifact repository to use"
            )
        endpoint, access_key, secret_key, name = (environment[variable] for variable in _REPOSITORY)
        bucket = Bucket.at(endpoint, access_key, secret_key, name, environment.get("S3_CA_FILE", ""))
        registries = {
            name: environment[f"SNAPSHOTTER_{name}"]
            for name in _REGISTRIES
            if f"SNAPSHOTTER_{name}" in environment
        }

        def passed_on(name: str) -> str:
            return environment.get(f"DISPATCHER_{name}", "")

        return cls(
            environment["ARGO_SERVER"],
            environment.get("ARGO_TOKEN", ""),
            environment["ARGO_NAMESPACE"],
            bucket,
            immutable_image_prefixes=passed_on("IMMUTABLE_IMAGE_PREFIXES"),
            readable_keys=passed_on("READABLE_KEYS"),
            writable_keys=passed_on("WRITABLE_KEYS"),
            ca_file=passed_on("ARGO_CA_FILE"),
            image_policy=passed_on("IMAGE_POLICY"),
            registries=registries,
        )

    def argo(self, prefix: str) -> dict[str, str]:
        """The settings of the dispatcher that name Argo, images that it may trust and objects that projects share."""
        return {
            f"{prefix}IMMUTABLE_IMAGE_PREFIXES": self.immutable_image_prefixes,
            f"{prefix}READABLE_KEYS": self.readable_keys,
            f"{prefix}WRITABLE_KEYS": self.writable_keys,
            **({f"{prefix}IMAGE_POLICY": self.image_policy} if self.image_policy else {}),
            f"{prefix}ARGO_URL": self.server,
            f"{prefix}ARGO_CA_FILE": self.ca_file,
            f"{prefix}ARGO_NAMESPACE": self.namespace,
        }
