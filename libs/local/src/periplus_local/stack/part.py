"""What a part of the stack is: a command, what makes it ready, and how it is stopped."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

Check = Callable[[], Awaitable[None]]
"""Returns when all is well; raises NotReadyError to be asked again, anything else to give up."""

Prepare = Callable[[], Awaitable[None]]


class PartFailedError(Exception):
    """A part did not become ready; the message has the reason and the end of its log."""


class NotReadyError(Exception):
    """The part does not answer yet; the message says what it lacks."""


@dataclass(frozen=True)
class User:
    """An unprivileged user that a part runs as."""

    uid: int
    gid: int


@dataclass(frozen=True)
class Part:
    """One process of the stack.

    `env` is added to a small inherited environment. `prepare` runs before every start and
    `provision` after the part first answers; both must be repeatable. A part with `once` is a job:
    it is ready when it has ended with 0, and it is never restarted. A job without a command is
    what it prepares and provisions. Times are in seconds.
    """

    name: str
    command: tuple[str, ...]
    directory: Path
    ready: Check | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    after: tuple[str, ...] = ()
    """Parts that must be ready before it starts. They stop after it."""
    uses: tuple[str, ...] = ()
    """Parts that it can start without and that stop after it."""
    prepare: Prepare | None = None
    provision: Prepare | None = None
    address: str = ""
    user: User | None = None
    once: bool = False
    stop_signal: signal.Signals = signal.SIGTERM
    grace: float = 10.0
    timeout: float = 60.0
    temporary: tuple[Path, ...] = ()
    """Files and folders outside the home, which are removed when the stack has stopped."""


class State(StrEnum):
    """Where a part is in its life."""

    STARTING = "starting"
    READY = "ready"
    FAILED = "failed"
    RESTARTING = "restarting"
    STOPPED = "stopped"


@dataclass(frozen=True)
class Change:
    """A part entered a state. `seconds` is how long that took; `reason` is for people."""

    part: str
    state: State
    seconds: float = 0.0
    reason: str = ""
    address: str = ""

    def line(self) -> str:
        """The change on one line, or on several where the reason has several."""
        took = f" in {self.seconds:.1f} s" if self.state in (State.READY, State.STOPPED) else ""
        address = f"  {self.address}" if self.address and self.state is State.READY else ""
        reason = f": {self.reason}" if self.reason else ""
        return f"{self.part:<20} {self.state}{took}{address}{reason}"


OnChange = Callable[[Change], None]
