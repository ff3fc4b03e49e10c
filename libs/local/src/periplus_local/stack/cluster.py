"""An Argo and an artifact repository that run elsewhere, for `periplus up --cluster`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from periplus_local.stack.bucket import Bucket

if TYPE_CHECKING:
    from collections.abc import Mapping

_REPOSITORY = ("S3_ENDPOINT", "S3_ACCESS_KEY", "S3_SECRET_KEY", "S3_BUCKET")
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

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Cluster:
        """The cluster that ARGO_SERVER, ARGO_TOKEN, ARGO_NAMESPACE and S3_* name; those of Argo are the ones that its own client reads.

        DISPATCHER_IMMUTABLE_IMAGE_PREFIXES, _READABLE_KEYS, _WRITABLE_KEYS and _ARGO_CA_FILE are passed on to the
        dispatcher; S3_CA_FILE has the authorities of an https S3_ENDPOINT.
        Raises NoClusterError.
        """
        missing = [name for name in _REQUIRED if not environment.get(name)]
        if missing:
            raise NoClusterError(
                f"set {', '.join(missing)}: they name the Argo and the artifact repository to use"
            )
        endpoint, access_key, secret_key, name = (environment[variable] for variable in _REPOSITORY)
        bucket = Bucket.at(endpoint, access_key, secret_key, name, environment.get("S3_CA_FILE", ""))
        token = environment.get("ARGO_TOKEN", "")
        passed_on = (
            environment.get(f"DISPATCHER_{name}", "")
            for name in ("IMMUTABLE_IMAGE_PREFIXES", "READABLE_KEYS", "WRITABLE_KEYS", "ARGO_CA_FILE")
        )
        return cls(environment["ARGO_SERVER"], token, environment["ARGO_NAMESPACE"], bucket, *passed_on)

    def argo(self, prefix: str) -> dict[str, str]:
        """The settings of the dispatcher that name Argo, images that it may trust and objects that projects share."""
        return {
            f"{prefix}IMMUTABLE_IMAGE_PREFIXES": self.immutable_image_prefixes,
            f"{prefix}READABLE_KEYS": self.readable_keys,
            f"{prefix}WRITABLE_KEYS": self.writable_keys,
            f"{prefix}ARGO_URL": self.server,
            f"{prefix}ARGO_CA_FILE": self.ca_file,
            f"{prefix}ARGO_NAMESPACE": self.namespace,
        }
