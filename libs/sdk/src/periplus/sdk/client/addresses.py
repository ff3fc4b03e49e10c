"""Addresses of services, host:port or unix:/path, as gRPC takes them.

The services have a module of the same content, which the SDK does not depend on.
"""

from __future__ import annotations

import os
import sys
from functools import cache
from urllib.parse import quote

_UNIX = "unix:"
_MAX_BYTES = 107 if sys.platform == "linux" else 103
"""The longest path that the system takes as a socket's address."""


def grpc_target(address: str) -> str:
    """The address of a service in gRPC's syntax, where a path is a URI."""
    if not address.startswith(_UNIX):
        return address
    return _UNIX + quote(_short(address.removeprefix(_UNIX)))


def _short(path: str) -> str:
    """A path of the same socket that fits into an address; gRPC reports the error where there is none."""
    folder, name = os.path.split(path)
    if len(os.fsencode(path)) <= _MAX_BYTES or sys.platform != "linux" or not os.path.isdir(folder):  # noqa: PTH112 - pathlib takes time to load
        return path
    return f"/proc/self/fd/{_descriptor(folder)}/{name}"


@cache
def _descriptor(folder: str) -> int:
    """An open descriptor of the folder, kept for as long as this process runs."""
    return os.open(folder, os.O_PATH | os.O_DIRECTORY)
