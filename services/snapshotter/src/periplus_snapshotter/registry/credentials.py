"""Credentials for registries, from a Docker config (`~/.docker/config.json`, or a pull secret's `.dockerconfigjson`)."""

import base64
import binascii
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from periplus_common.errors import Unavailable
from periplus_snapshotter.images.reference import DOCKER_HUB

MAX_CONFIG_BYTES = 1 << 20
_DOCKER_HUB_KEYS = ("index.docker.io", "docker.io", "registry-1.docker.io")


@dataclass(frozen=True)
class Credentials:
    """The user and the password for one registry."""

    user: str
    password: str = field(repr=False)

    @property
    def authorization(self) -> str:
        """The value of an Authorization header."""
        return f"Basic {base64.b64encode(f'{self.user}:{self.password}'.encode()).decode()}"


class DockerConfig:
    """A Docker config, read again for each question: Kubernetes replaces a mounted secret in place.

    Programs that it names (`credHelpers`, `credsStore`) are not run.
    """

    def __init__(self, path: str) -> None:
        self._path = path

    def find(self, registry: str, repository: str) -> Credentials | None:
        """The credentials for a repository: those of the longest matching entry. Raises `Unavailable`."""
        if not self._path:
            return None
        hosts = _DOCKER_HUB_KEYS if registry == DOCKER_HUB else (registry,)
        names = {host if not path else f"{host}/{path}" for host in hosts for path in _prefixes(repository)}
        best, found = -1, None
        for key, entry in self._auths().items():
            name = _entry_name(key)
            if name in names and name.count("/") > best and (credentials := _credentials(entry)) is not None:
                best, found = name.count("/"), credentials
        return found

    def _auths(self) -> dict[str, Any]:
        try:
            with Path(self._path).open("rb") as file:
                content = file.read(MAX_CONFIG_BYTES + 1)
            if len(content) > MAX_CONFIG_BYTES:
                raise ValueError("it is too large")
            document = json.loads(content)
            auths = document.get("auths") or {}
            if not isinstance(auths, dict):
                raise TypeError("its auths are no object")
        except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
            # Never the error's text: that of JSON quotes the content.
            raise Unavailable(
                f"the Docker config {self._path} can not be read: {type(error).__name__}",
                fix="mend the file that SNAPSHOTTER_REGISTRY_DOCKER_CONFIG names",
            ) from None
        return auths


def _prefixes(repository: str) -> list[str]:
    """The repository, the folders above it, and "" for the whole registry."""
    parts = repository.split("/")
    return ["/".join(parts[:count]) for count in range(len(parts) + 1)]


def _entry_name(key: str) -> str:
    """Host and folder of an entry, which may be a URL, as `https://index.docker.io/v1/` is."""
    name = key.partition("://")[2] or key
    host, _, path = name.strip("/").partition("/")
    return host.lower() if path in ("", "v1", "v2") else f"{host.lower()}/{path}"


def _credentials(entry: Any) -> Credentials | None:
    if not isinstance(entry, dict):
        return None
    user, password = entry.get("username"), entry.get("password")
    if not (isinstance(user, str) and isinstance(password, str)):
        try:
            text = base64.b64decode(str(entry.get("auth") or "")).decode()
        except (binascii.Error, UnicodeDecodeError):
            return None
        user, _, password = text.partition(":")
    return Credentials(user, password) if user and password else None
