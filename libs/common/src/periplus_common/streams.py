"""The streams of all services, as an administrator of NATS makes them: `python -m periplus_common.streams`."""

import asyncio
import sys
import urllib.request
from contextlib import suppress
from datetime import timedelta
from json import loads
from typing import Literal

import nats
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType, StreamConfig
from nats.js.errors import NotFoundError
from pydantic import SecretStr
from pydantic_settings import BaseSettings

from periplus_common import tls

STREAMS = ("DISPATCHER", "CACHE", "SNAPSHOTTER")
"""One for each service that publishes events."""

_MAX_AGE = timedelta(days=14)
_DUPLICATE_WINDOW = timedelta(minutes=2)
_MIB = 1 << 20
_MAX_MONITORING_BYTES = 1 << 20


class StreamSettings(BaseSettings, frozen=True):
    """Of the command. Variables begin with STREAMS_."""

    nats_url: SecretStr
    """The NATS server, with the user of an administrator."""
    nats_ca_file: str = ""
    """The authorities (PEM) that may have signed the certificate of a tls:// server; empty: the system's."""
    replicas: Literal[1, 3, 5] = 1
    """How many servers of a NATS cluster keep each message."""
    monitoring_url: str = ""
    """NATS' own monitoring, `http://nats:8222`. With it, a single replica is refused unless its `sync_interval` is `always`: a message that was acknowledged would be lost with the power."""


class UnsyncedError(Exception):
    """The server acknowledges messages before they are on its disk."""


async def declare_streams(url: str, ca_file: str = "", *, replicas: int = 1) -> None:
    """Create every stream, or update it to these settings. Raises errors of nats-py."""
    secured = tls.nats_options(url, ca_file)
    connection = await nats.connect(
        url, connect_timeout=2, allow_reconnect=False, max_reconnect_attempts=1, error_cb=_ignore, **secured
    )
    try:
        jetstream = connection.jetstream(timeout=10)
        for name in STREAMS:
            await _declare(jetstream, _stream(name, f"periplus.{name.lower()}.>", replicas))
        await _declare(jetstream, _stream("DEAD", "periplus-dead.>", replicas))
    finally:
        await connection.close()


def check_sync(monitoring_url: str) -> None:
    """Raise `UnsyncedError` unless a server writes each message to its disk before it acknowledges it; `OSError`, `ValueError`."""
    url = f"{monitoring_url.rstrip('/')}/jsz?config=true"
    with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - the administrator's own URL
        config = loads(answer.read(_MAX_MONITORING_BYTES)).get("config") or {}
    if config.get("sync_always") is not True:
        seconds = (config.get("sync_interval") or 0) / 1e9
        raise UnsyncedError(
            f"NATS writes messages to its disk every {seconds:g} s, after it has acknowledged them:"
            " set `sync_interval: always` in its `jetstream` settings, or STREAMS_REPLICAS to 3"
        )


async def _ignore(_: Exception) -> None:
    """The same error is raised by `connect`."""


async def _declare(jetstream: JetStreamContext, config: StreamConfig) -> None:
    try:
        await jetstream.stream_info(str(config.name))
    except NotFoundError:
        await jetstream.add_stream(config)
    else:
        await jetstream.update_stream(config)


def _stream(name: str, subjects: str, replicas: int) -> StreamConfig:
    # Limits retention: with the others the server forgets the ids of removed messages at a restart, and
    # would then store a message that is published twice again.
    return StreamConfig(
        name=name,
        subjects=[subjects],
        retention=RetentionPolicy.LIMITS,
        storage=StorageType.FILE,
        discard=DiscardPolicy.OLD,
        max_age=_MAX_AGE.total_seconds(),
        max_bytes=2048 * _MIB,
        max_msg_size=_MIB,
        duplicate_window=_DUPLICATE_WINDOW.total_seconds(),
        num_replicas=replicas,
        allow_direct=True,
        allow_atomic=True,
    )


def main() -> None:
    """Exits with 1 and a line where the streams can not be made; settings as those of the services."""
    from periplus_common.program import read  # which imports what a stack's supervisor does without

    settings = read(StreamSettings, "STREAMS_")
    url = settings.nats_url.get_secret_value()
    try:
        if settings.monitoring_url and settings.replicas == 1:
            check_sync(settings.monitoring_url)
        asyncio.run(declare_streams(url, settings.nats_ca_file, replicas=settings.replicas))
    except (UnsyncedError, NatsError, OSError, ValueError) as error:
        sys.exit(f"error: the streams can not be made: {error or type(error).__name__}")
    print(f"streams {', '.join((*STREAMS, 'DEAD'))}: ready")  # noqa: T201 - the program's output


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
