"""One supervisor per home: a lock that dies with its holder, and a note of who holds it."""

from __future__ import annotations

import fcntl
import json
import os
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, TextIO

from periplus_local.stack.birth import birth
from periplus_local.stack.home import write_private_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from periplus_local.stack.home import Home


@dataclass(frozen=True)
class Holder:
    """The process that runs a home's stack; `since` is in seconds since the epoch."""

    pid: int
    born: str
    since: float
    addresses: Mapping[str, str] = field(default_factory=dict)

    def told(self) -> str:
        """Who it is, since when, and where its parts are."""
        since = datetime.fromtimestamp(self.since).astimezone().isoformat(timespec="seconds")
        where = ", ".join(f"{name} {address}" for name, address in self.addresses.items())
        return f"process {self.pid} since {since}" + (f" ({where})" if where else "")


class HeldError(Exception):
    """Another supervisor runs what is in this home; the message says which and how to stop it."""

    def __init__(self, home: Home, holder: Holder | None) -> None:
        who = holder.told() if holder else "a process that is just starting"
        super().__init__(
            f"{home.path} is held by {who}; stop it with `periplus down --home {home.path}`, "
            "or choose another home (--home or PERIPLUS_HOME)"
        )
        self.home, self.holder = home, holder


@contextmanager
def held(home: Home) -> Iterator[Callable[[Mapping[str, str]], None]]:
    """Hold the home for as long as the block lasts. Raises HeldError if somebody else does.

    Gives a function that notes the addresses of the parts for whoever asks who holds it.
    """
    since = time.time()

    def note(addresses: Mapping[str, str]) -> None:
        who = Holder(os.getpid(), birth(os.getpid()), since, addresses)
        write_private_json(home.run / "holder.json", asdict(who))

    with (home.run / "lock").open("a", encoding="utf-8") as lock:
        if not _taken(lock):
            raise HeldError(home, _noted(home))
        note({})
        try:
            yield note
        finally:
            (home.run / "holder.json").unlink(missing_ok=True)


def _taken(lock: TextIO) -> bool:
    """Take the lock; it may be a moment in the hands of one who only asks whether it is held."""
    for _ in range(10):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.02)
        else:
            return True
    return False


def is_held(home: Home) -> bool:
    """Whether a supervisor runs this home's stack now."""
    try:
        with (home.run / "lock").open("r", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def holder(home: Home) -> Holder | None:
    """Who runs this home's stack now, if anybody does."""
    return _noted(home) if is_held(home) else None


def _noted(home: Home) -> Holder | None:
    try:
        note = Holder(**json.loads((home.run / "holder.json").read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return None
    return note if birth(note.pid) == note.born else None
