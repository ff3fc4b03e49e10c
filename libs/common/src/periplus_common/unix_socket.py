"""Addresses of Unix sockets, "unix:" and a path, whose length the system limits to about a hundred bytes."""

import errno
import os
import sys
from functools import cache
from urllib.parse import quote, unquote

PREFIX = "unix:"
POSTGRES_SOCKET = ".s.PGSQL.5432"
"""The name of PostgreSQL's socket in its folder: its clients put it together of a port that nothing listens on."""
MAX_BYTES = 107 if sys.platform == "linux" else 103
"""The longest path in a socket's address, without the NUL that ends it."""


def grpc_target(address: str) -> str:
    """An address, host:port or unix:/path, as gRPC takes it. Raises what `short_path` raises."""
    if not address.startswith(PREFIX):
        return address
    return PREFIX + quote(short_path(address.removeprefix(PREFIX)))  # gRPC decodes it as a URI


def postgres_dsn(dsn: str) -> str:
    """A connection string, whose host may be the folder of a socket, percent-encoded, as asyncpg takes it.

    Raises what `short_path` raises.
    """
    before, at, rest = dsn.rpartition("@")
    host, slash, database = rest.partition("/")
    folder = unquote(host)
    if not folder.startswith("/"):
        return dsn
    short, _ = os.path.split(short_path(f"{folder}/{POSTGRES_SOCKET}"))
    return f"{before}{at}{quote(short, safe='')}{slash}{database}"


def short_path(path: str) -> str:
    """A path of the same socket that fits into an address; it is valid in this process only.

    Raises OSError where a long path's folder does not exist, or where the system has no shorter name for it.
    """
    if len(os.fsencode(path)) <= MAX_BYTES:
        return path
    if sys.platform != "linux":
        raise OSError(errno.ENAMETOOLONG, f"longer than {MAX_BYTES} bytes: choose a shorter home", path)
    folder, name = os.path.split(path)
    return f"/proc/self/fd/{_descriptor(folder)}/{name}"


@cache
def _descriptor(folder: str) -> int:
    """An open descriptor of the folder, kept for as long as this process runs."""
    return os.open(folder, os.O_PATH | os.O_DIRECTORY)
