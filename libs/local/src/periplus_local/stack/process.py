"""How a process of the stack is described: its command, when it is ready, and how it is stopped."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

Check = Callable[[], Awaitable[None]]
"""Returns when the process is ready. NotReadyError means: check again. Any other error ends the start."""

Prepare = Callable[[], Awaitable[None]]


class ProcessFailedError(Exception):
    """A process did not become ready; the message has the reason and the end of its log."""


class NotReadyError(Exception):
    """The process is not ready yet; the message says what is missing."""


@dataclass(frozen=True)
class User:
    """The unprivileged user that a process runs as."""

    uid: int
    gid: int


@dataclass(frozen=True)
class ProcessSpec:
    """One process of the stack, or one job.

    `env` is added to the few inherited variables; other processes of the user can read it. `secrets` are settings too,
    which reach a process of ours through a pipe; other programs read theirs from files of the home. `prepare` runs
    before every start and `provision` after the process first becomes ready; both must be idempotent. A job is ready
    when its process has exited with 0, and it is not restarted. A job without a command consists of `prepare` and
    `provision`.
    """

    name: str
    command: tuple[str, ...]
    directory: Path
    """The working directory; made where it does not exist."""
    ready: Check | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    depends_on: tuple[str, ...] = ()
    """Processes that must be ready before it starts. They are stopped after it."""
    stops_before: tuple[str, ...] = ()
    """Processes that need not run when it starts, and that are stopped after it."""
    prepare: Prepare | None = None
    provision: Prepare | None = None
    address: str = ""
    """Where it listens: host:port, or unix:/path."""
    user: User | None = None
    """Who runs it; None: the user of the stack."""
    is_job: bool = False
    stop_signal: signal.Signals = signal.SIGTERM
    stop_timeout_seconds: float = 10.0
    """After the stop signal; then its process group is killed."""
    start_timeout_seconds: float = 60.0
    temporary: tuple[Path, ...] = ()
    """Files and folders outside the home, which are removed when the stack has stopped."""

    def __post_init__(self) -> None:
        """Refuse a secret in what other processes may read. Raises ValueError that names it."""
        shown = {*self.command, *self.env.values()} - {""}
        if found := [name for name, value in self.secrets.items() if value in shown]:
            raise ValueError(f"{self.name}: {', '.join(found)} must not be an argument or a variable")


class ProcessState(StrEnum):
    """The state of a process of the stack."""

    STARTING = "starting"
    READY = "ready"
    FAILED = "failed"
    RESTARTING = "restarting"
    STOPPED = "stopped"


@dataclass(frozen=True)
class StateChange:
    """A process entered a state. `seconds` is how long that took; `reason` is a text for people."""

    process: str
    state: ProcessState
    seconds: float = 0.0
    reason: str = ""
    address: str = ""

    def line(self) -> str:
        """The change on one line, or on several where the reason has several."""
        took = f" in {self.seconds:.1f} s" if self.state in (ProcessState.READY, ProcessState.STOPPED) else ""
        address = f"  {self.address}" if self.address and self.state is ProcessState.READY else ""
        reason = f": {self.reason}" if self.reason else ""
        return f"{self.process:<20} {self.state}{took}{address}{reason}"


OnChange = Callable[[StateChange], None]
