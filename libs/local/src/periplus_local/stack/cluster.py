"""An Argo and a store that run elsewhere, for a stack whose steps are to run there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from periplus_local.stack.bucket import Bucket

if TYPE_CHECKING:
    from collections.abc import Mapping

_STORE = ("S3_ENDPOINT", "S3_ACCESS_KEY", "S3_SECRET_KEY", "S3_BUCKET")
_NEEDED = ("ARGO_SERVER", "ARGO_NAMESPACE", *_STORE)


class NoClusterError(Exception):
    """Not every variable that names the cluster is set; the message names those that are missing."""


@dataclass(frozen=True)
class Cluster:
    """Where Argo is and where it keeps artifacts. `token` is empty for an Argo that asks for none."""

    server: str
    token: str
    namespace: str
    bucket: Bucket

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Cluster:
        """The cluster that ARGO_SERVER, ARGO_TOKEN, ARGO_NAMESPACE and S3_* name, as Argo's own client has it.

        Raises NoClusterError.
        """
        missing = [name for name in _NEEDED if not environment.get(name)]
        if missing:
            raise NoClusterError(f"set {', '.join(missing)}: they name the Argo and the store to use")
        bucket = Bucket.at(*(environment[name] for name in _STORE))
        token = environment.get("ARGO_TOKEN", "")
        return cls(environment["ARGO_SERVER"], token, environment["ARGO_NAMESPACE"], bucket)

    def argo(self, prefix: str) -> dict[str, str]:
        """The settings of the dispatcher that name Argo."""
        return {
            f"{prefix}ARGO_URL": self.server,
            f"{prefix}ARGO_TOKEN": self.token,
            f"{prefix}ARGO_NAMESPACE": self.namespace,
        }
