"""Who watches workflows, and what each has not been told yet."""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field

from periplus_local.argo import selector

BYTES_A_SECOND = 2e6
LONGEST_PAUSE = 0.5


@dataclass(frozen=True)
class Seen:
    """A workflow as it is told to those who watch: its labels, and all of it as JSON."""

    labels: dict[str, str]
    body: bytes
    completed: bool


Look = Callable[[str], "Seen | None"]


@dataclass(eq=False)
class Watch:
    """One client that watches; changes of one workflow that it has not read yet become one.

    A large workflow that changes often is told of less often, so that neither side does little else than
    write and read it; its end is told at once.
    """

    namespace: str
    matches: selector.Test
    look: Look
    pending: dict[str, str] = field(default_factory=dict)
    told: set[str] = field(default_factory=set)
    stirred: asyncio.Event = field(default_factory=asyncio.Event)
    due: dict[str, float] = field(default_factory=dict)
    gone: list[bytes] = field(default_factory=list)
    over: bool = False

    def end(self) -> None:
        """Tell what is still untold, and then no more."""
        self.over = True
        self.stirred.set()

    def note(self, uid: str, kind: str, *, ended: bool = False) -> None:
        """A workflow was added or changed, or has ended."""
        if ended:
            self.due.pop(uid, None)
        if self.pending.get(uid) != "ADDED":
            self.pending[uid] = kind
        self.stirred.set()

    def removed(self, uid: str, body: bytes) -> None:
        """A workflow was taken away."""
        self.pending.pop(uid, None)
        self.due.pop(uid, None)
        if uid in self.told:
            self.told.discard(uid)
            self.gone.append(body)
            self.stirred.set()

    async def next(self) -> list[tuple[str, bytes]]:
        """The next events: their kind, and the workflow as JSON; none once the hub is closed."""
        while True:
            self.stirred.clear()
            made = self._made()
            if made or self.over:
                return made
            now = asyncio.get_running_loop().time()
            soonest = min((self.due.get(uid, 0.0) for uid in self.pending), default=None)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.stirred.wait(), None if soonest is None else soonest - now)

    def _made(self) -> list[tuple[str, bytes]]:
        now = asyncio.get_running_loop().time()
        events = [("DELETED", body) for body in self.gone]
        self.gone.clear()
        for uid in [uid for uid in self.pending if self.due.get(uid, 0.0) <= now]:
            kind = self.pending.pop(uid)
            seen = self.look(uid)
            event = self._event(uid, kind, seen)
            if event is not None and seen is not None:
                events.append(event)
                if seen.completed:
                    self.due.pop(uid, None)
                else:
                    self.due[uid] = now + min(len(event[1]) / BYTES_A_SECOND, LONGEST_PAUSE)
        return events

    def _event(self, uid: str, kind: str, seen: Seen | None) -> tuple[str, bytes] | None:
        if seen is None:
            self.told.discard(uid)
            return None
        if not self.matches(seen.labels):
            if uid not in self.told:
                return None
            self.told.discard(uid)
            return "DELETED", seen.body
        first = uid not in self.told and kind == "ADDED"
        self.told.add(uid)
        return "ADDED" if first else "MODIFIED", seen.body


class Hub:
    """All who watch."""

    def __init__(self) -> None:
        """Nobody yet."""
        self._watches: set[Watch] = set()
        self.closed = False

    def close(self) -> None:
        """End all watches: the server is about to go."""
        self.closed = True
        for watch in self._watches:
            watch.end()

    def join(self, watch: Watch) -> None:
        """Tell this one, too, from now on."""
        self._watches.add(watch)
        watch.over = self.closed

    def leave(self, watch: Watch) -> None:
        """Tell this one no more."""
        self._watches.discard(watch)

    def tell(self, namespace: str, uid: str, kind: str, *, ended: bool = False) -> None:
        """Something happened to a workflow; it may have ended with it."""
        for watch in self._watches:
            if watch.namespace in {"", namespace}:
                watch.note(uid, kind, ended=ended)

    def tell_removed(self, namespace: str, uid: str, body: bytes) -> None:
        """A workflow was taken away; `body` is what it was last."""
        for watch in self._watches:
            if watch.namespace in {"", namespace}:
                watch.removed(uid, body)
