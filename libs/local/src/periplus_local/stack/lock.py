"""One supervisor per home: a file lock, which ends with its holder, and a file that names the holder."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, TextIO

from periplus_common.unix_socket import PREFIX
from periplus_local.boot import start_time
from periplus_local.stack.home import HomeError, write_private_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from periplus_local.stack.home import Home

_ATTEMPTS, _ATTEMPT_DELAY_SECONDS = 10, 0.02


@dataclass(frozen=True)
class Holder:
    """The process that runs a home's stack; `since` is in seconds since the epoch."""

    pid: int
    start_time: str
    since: float
    addresses: Mapping[str, str] = field(default_factory=dict)

    def describe(self) -> str:
        """The process, since when it runs the stack, and the ports of the stack; its sockets are in the home."""
        since = datetime.fromtimestamp(self.since).astimezone().isoformat(timespec="seconds")
        where = ", ".join(
            f"{name} {address}" for name, address in self.addresses.items() if not address.startswith(PREFIX)
        )
        return f"process {self.pid} since {since}" + (f" ({where})" if where else "")


class HeldError(Exception):
    """Another supervisor runs the stack of this home; the message names it and how to stop it."""

    def __init__(self, home: Home, holder: Holder | None) -> None:
        who = holder.describe() if holder else "a process that is just starting"
        super().__init__(
            f"{home.path} is held by {who}; stop it with `periplus down --home {home.path}`, "
            "or choose another home (--home or PERIPLUS_HOME)"
        )
        self.home, self.holder = home, holder


@contextmanager
def held(home: Home) -> Iterator[Callable[[Mapping[str, str]], None]]:
    """Hold the home until the block ends. Raises HeldError if another process holds it.

    Yields a function that publishes the addresses of the stack's processes in the holder file. The settings of clients are
    removed at both ends: they are valid only while the one who wrote them holds the home.
    """
    since = time.time()

    def publish(addresses: Mapping[str, str]) -> None:
        who = Holder(os.getpid(), start_time(os.getpid()), since, addresses)
        write_private_json(home.run / "holder.json", asdict(who))

    descriptor = os.open(home.run / "lock", os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "a", encoding="ascii") as lock:
        if not _take(lock):
            raise HeldError(home, _read_holder(home))
        os.fchmod(descriptor, 0o600)  # of earlier versions, which left it to the umask
        lock.truncate(0)
        home.client_settings.unlink(missing_ok=True)
        lock.write(secrets.token_hex(16))
        lock.flush()
        publish({})
        try:
            yield publish
        finally:
            for path in (home.client_settings, home.run / "holder.json"):
                path.unlink(missing_ok=True)
            lock.truncate(0)


def publish_to_clients(home: Home, settings: Mapping[str, str]) -> None:
    """Write the settings of clients, who believe them while the lock is held and has the text that is written with them.

    This process must hold the home.
    """
    text = (home.run / "lock").read_text(encoding="ascii")
    write_private_json(home.client_settings, {**settings, "lock": text})


def _take(lock: TextIO) -> bool:
    """Take the lock; tried several times, as `is_held` of another process holds it for a moment."""
    for _ in range(_ATTEMPTS):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_ATTEMPT_DELAY_SECONDS)
        else:
            return True
    return False


def is_held(home: Home) -> bool:
    """Whether a supervisor runs this home's stack now. Nothing is read from the home, which need not be trusted."""
    try:
        # Neither a link out of the home, nor a pipe whose writer would be waited for.
        lock = os.open(home.run / "lock", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def start_afresh(home: Home) -> Path:
    """Rename a home that is not trusted, and return where it is now; as `Home.move_aside`. Raises HomeError."""
    _refuse_if_in_use(home)
    return home.move_aside()


def trust(home: Home) -> None:
    """Seal a home that came from elsewhere; as `Home.trust`. Raises HomeError."""
    _refuse_if_in_use(home)
    home.trust()


def _refuse_if_in_use(home: Home) -> None:
    if is_held(home):
        raise HomeError(f"{home.path} is in use: a process has locked {home.run / 'lock'}; end that first")


def holder(home: Home) -> Holder | None:
    """The process that runs this home's stack now, or None."""
    return _read_holder(home) if is_held(home) else None


def _read_holder(home: Home) -> Holder | None:
    try:
        found = Holder(**json.loads((home.run / "holder.json").read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return None
    return found if start_time(found.pid) == found.start_time else None
