"""The settings that services share. Each service adds its own, and its prefix."""

from pydantic import SecretStr
from pydantic_settings import BaseSettings


class DatabaseSettings(BaseSettings, frozen=True):
    """What a migration needs."""

    postgres_dsn: SecretStr
    """The database, with the service's own role, whose search path is the service's schema.

    For a Unix socket, its folder is the host: postgresql://user:password@%2Ffolder/database.
    """


class ServiceSettings(DatabaseSettings, frozen=True):
    """Read once in `__main__`, by `program.read`, and passed down by value.

    Nothing that differs between places has a default: a missing variable ends the process with its name.
    """

    nats_url: SecretStr
    """The NATS server, with the service's own user; tls:// for a server whose TLS handshake comes first."""
    nats_ca_file: str = ""
    """The authorities (PEM) that may have signed the certificate of a tls:// server; empty: the system's."""
    grpc_address: str
    """Where to serve gRPC: host and port (0: any free one), or "unix:" and the path of a socket."""
    token: SecretStr
    """The bearer token that clients send, and that this service sends to others."""
    otlp_endpoint: str = ""
    """The OpenTelemetry collector that gets traces and metrics, "host:port" without TLS; nothing is exported if empty."""


class ArtifactRepositorySettings(ServiceSettings, frozen=True):
    """Of a service that names objects of the artifact repository, and neither reads nor writes them."""

    s3_endpoint: str
    """Host and port, without a scheme."""
    s3_bucket: str
    """The bucket of the default artifact repository."""


class ObjectStoreSettings(ArtifactRepositorySettings, frozen=True):
    """Of a service that reads or writes objects of the artifact repository."""

    s3_access_key: SecretStr
    """Its rights on the bucket are those that the table of S3 lists for this service."""
    s3_secret_key: SecretStr
    """Belongs to the access key."""
    s3_secure: bool = False
    """Whether the endpoint speaks TLS."""
    s3_ca_file: str = ""
    """The authorities (PEM) that may have signed its certificate; empty: the system's."""
