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

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Cluster:
        """The cluster that ARGO_SERVER, ARGO_TOKEN, ARGO_NAMESPACE and S3_* name; those of Argo are the ones that its own client reads.

        S3_CA_FILE has the authorities of an https S3_ENDPOINT. Raises NoClusterError.
        """
        missing = [name for name in _REQUIRED if not environment.get(name)]
        if missing:
            raise NoClusterError(
                f"set {', '.join(missing)}: they name the Argo and the artifact repository to use"
            )
        endpoint, access_key, secret_key, name = (environment[variable] for variable in _REPOSITORY)
        bucket = Bucket.at(endpoint, access_key, secret_key, name, environment.get("S3_CA_FILE", ""))
        token = environment.get("ARGO_TOKEN", "")
        return cls(environment["ARGO_SERVER"], token, environment["ARGO_NAMESPACE"], bucket)

    def argo(self, prefix: str) -> dict[str, str]:
        """The settings of the dispatcher that name Argo."""
        return {f"{prefix}ARGO_URL": self.server, f"{prefix}ARGO_NAMESPACE": self.namespace}
