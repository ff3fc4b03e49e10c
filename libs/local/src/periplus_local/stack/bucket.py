"""The bucket of the artifact repository, and the settings that name it to a process."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Bucket:
    """A bucket of an S3 store at `endpoint` (host:port), which speaks TLS if it is `secure`.

    `ca_file` has the authorities that may have signed its certificate; the system's are used if it is empty.
    """

    endpoint: str
    access_key: str
    secret_key: str
    name: str
    secure: bool = False
    ca_file: str = ""

    @classmethod
    def at(cls, endpoint: str, access_key: str, secret_key: str, name: str, ca_file: str = "") -> Bucket:
        """A bucket at an endpoint that may begin with http:// or https://."""
        scheme, _, address = endpoint.rpartition("://")
        secure = scheme.lower() == "https"
        return cls(address.rstrip("/"), access_key, secret_key, name, secure, ca_file)

    def location(self, prefix: str) -> dict[str, str]:
        """The environment variables that name it to a process whose settings have that prefix."""
        return {f"{prefix}S3_ENDPOINT": self.endpoint, f"{prefix}S3_BUCKET": self.name}

    def connection(self, prefix: str) -> dict[str, str]:
        """The same for a process that reads or writes objects."""
        return self.location(prefix) | {
            f"{prefix}S3_SECURE": str(self.secure).lower(),
            f"{prefix}S3_CA_FILE": self.ca_file,
        }

    def keys(self, prefix: str) -> dict[str, str]:
        """The secret settings of a process that reads or writes objects."""
        return {f"{prefix}S3_ACCESS_KEY": self.access_key, f"{prefix}S3_SECRET_KEY": self.secret_key}
