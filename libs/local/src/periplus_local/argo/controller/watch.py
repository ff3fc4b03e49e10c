"""Watches: clients that follow the changes of workflows, and which events each has not been sent yet."""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field

from periplus_local.argo.selectors import LabelTest

# After an event of n bytes the next of the same workflow waits n / MAX_BYTES_PER_SECOND, at most MAX_PAUSE_SECONDS.
MAX_BYTES_PER_SECOND = 2e6
MAX_PAUSE_SECONDS = 0.5


@dataclass(frozen=True)
class WorkflowSnapshot:
    """A workflow as it is sent to watches: its labels, and all of it as JSON."""

    labels: dict[str, str]
    body: bytes
    completed: bool


GetSnapshot = Callable[[str], "WorkflowSnapshot | None"]


@dataclass(eq=False)
class Watch:
    """One client that watches. Changes of one workflow that it has not read yet are merged into one event.

    A large workflow that changes often is sent less often, so that neither side spends its time on writing and
    reading it; its end is sent at once. `pending` holds the kind of the next event by uid, `not_before` the loop
    time before which it is not sent, `sent` the uids that the client knows.
    """

    namespace: str
    matches: LabelTest
    snapshot: GetSnapshot
    pending: dict[str, str] = field(default_factory=dict)
    sent: set[str] = field(default_factory=set)
    wakeup: asyncio.Event = field(default_factory=asyncio.Event)
    not_before: dict[str, float] = field(default_factory=dict)
    deletions: list[bytes] = field(default_factory=list)
    closed: bool = False

    def close(self) -> None:
        """Send what is pending, and then end the stream."""
        self.closed = True
        self.wakeup.set()

    def changed(self, uid: str, kind: str, *, ended: bool = False) -> None:
        """Note that a workflow was ADDED or MODIFIED, and whether it has ended."""
        if ended:
            self.not_before.pop(uid, None)
        if self.pending.get(uid) != "ADDED":
            self.pending[uid] = kind
        self.wakeup.set()

    def deleted(self, uid: str, body: bytes) -> None:
        """Note that a workflow was deleted; `body` is its last state."""
        self.pending.pop(uid, None)
        self.not_before.pop(uid, None)
        if uid in self.sent:
            self.sent.discard(uid)
            self.deletions.append(body)
            self.wakeup.set()

    async def next_events(self) -> list[tuple[str, bytes]]:
        """Wait for events: their kind, and the workflow as JSON. Empty once the watch is closed."""
        while True:
            self.wakeup.clear()
            events = self._due_events()
            if events or self.closed:
                return events
            now = asyncio.get_running_loop().time()
            soonest = min((self.not_before.get(uid, 0.0) for uid in self.pending), default=None)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if soonest is None else soonest - now):
                    await self.wakeup.wait()

    def _due_events(self) -> list[tuple[str, bytes]]:
        now = asyncio.get_running_loop().time()
        events = [("DELETED", body) for body in self.deletions]
        self.deletions.clear()
        for uid in [uid for uid in self.pending if self.not_before.get(uid, 0.0) <= now]:
            kind = self.pending.pop(uid)
            snapshot = self.snapshot(uid)
            event = self._event(uid, kind, snapshot)
            if event is not None and snapshot is not None:
                events.append(event)
                if snapshot.completed:
                    self.not_before.pop(uid, None)
                else:
                    pause = min(len(event[1]) / MAX_BYTES_PER_SECOND, MAX_PAUSE_SECONDS)
                    self.not_before[uid] = now + pause
        return events

    def _event(self, uid: str, kind: str, snapshot: WorkflowSnapshot | None) -> tuple[str, bytes] | None:
        if snapshot is None:
            self.sent.discard(uid)
            return None
        if not self.matches(snapshot.labels):
            if uid not in self.sent:
                return None
            self.sent.discard(uid)
            return "DELETED", snapshot.body
        is_first = uid not in self.sent and kind == "ADDED"
        self.sent.add(uid)
        return "ADDED" if is_first else "MODIFIED", snapshot.body


class WatchHub:
    """All open watches of the server."""

    def __init__(self) -> None:
        self._watches: set[Watch] = set()
        self.closed = False

    def close(self) -> None:
        """End all watches: the server is about to stop."""
        self.closed = True
        for watch in self._watches:
            watch.close()

    def add(self, watch: Watch) -> None:
        """Notify this watch from now on."""
        self._watches.add(watch)
        watch.closed = self.closed

    def remove(self, watch: Watch) -> None:
        """Notify this watch no longer."""
        self._watches.discard(watch)

    def notify(self, namespace: str, uid: str, kind: str, *, ended: bool = False) -> None:
        """A workflow was ADDED or MODIFIED; it may have ended."""
        for watch in self._watches:
            if watch.namespace in {"", namespace}:
                watch.changed(uid, kind, ended=ended)

    def notify_deleted(self, namespace: str, uid: str, body: bytes) -> None:
        """A workflow was deleted; `body` is its last state."""
        for watch in self._watches:
            if watch.namespace in {"", namespace}:
                watch.deleted(uid, body)
