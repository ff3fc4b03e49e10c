"""Notifications that the rows of a run changed, from any replica: one LISTEN connection a process."""

import asyncio
import json
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import asyncpg

from periplus_common import postgres
from periplus_common.runtime import background_task

log = logging.getLogger(__name__)

CHANNEL = "lineage"
_RECONNECT_DELAY_SECONDS = 1.0
_KEEPALIVE_SECONDS = 10.0


class RunNotifications:
    """Sets an event for each subscriber of a run."""

    def __init__(self) -> None:
        self._subscribers: dict[tuple[str, str], set[asyncio.Event]] = defaultdict(set)
        self.is_stopping = False
        """Whether the process is about to end, so that no more notifications will be sent."""

    @contextmanager
    def subscribe(self, project: str, run: str) -> Iterator[asyncio.Event]:
        """An event that is set whenever the run may have changed. The subscriber clears it."""
        subscriber = asyncio.Event()
        key = (project, run)
        self._subscribers[key].add(subscriber)
        try:
            yield subscriber
        finally:
            self._subscribers[key].discard(subscriber)
            if not self._subscribers[key]:
                del self._subscribers[key]

    def notify(self, project: str, run: str) -> None:
        """Notify the subscribers of a run."""
        for subscriber in self._subscribers.get((project, run), ()):
            subscriber.set()

    def notify_all(self) -> None:
        """Notify every subscriber, as notifications may have been lost."""
        for subscribers in self._subscribers.values():
            for subscriber in subscribers:
                subscriber.set()

    @contextmanager
    def stopping_on_exit(self) -> Iterator[None]:
        """On exit, have all subscribers return, so that the server need not wait for them."""
        try:
            yield
        finally:
            self.is_stopping = True
            self.notify_all()


@asynccontextmanager
async def listening(dsn: str) -> AsyncIterator[RunNotifications]:
    """Notifications while the block is open. After a lost connection to Postgres, every subscriber is notified."""
    notifications = RunNotifications()
    async with background_task(_listen(dsn, notifications)):
        yield notifications


async def _listen(dsn: str, notifications: RunNotifications) -> None:
    def on_notification(*arguments: object) -> None:
        payload = str(arguments[-1])  # after the connection, the process id and the channel
        for project, run in json.loads(payload):
            notifications.notify(project, run)

    while True:
        try:
            connection = await postgres.connect(dsn, timeout=10)
            lost = asyncio.Event()
            connection.add_termination_listener(lambda _, lost=lost: lost.set())
            try:
                schema = await connection.fetchval("SELECT current_schema()")
                await connection.add_listener(f"{CHANNEL}_{schema}", on_notification)
                notifications.notify_all()
                while not connection.is_closed():
                    await connection.execute("SELECT", timeout=10)
                    await _wait(lost, _KEEPALIVE_SECONDS)
            finally:
                connection.terminate()
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            log.warning("no notifications until Postgres can be reached: %s", error)
            await asyncio.sleep(_RECONNECT_DELAY_SECONDS)


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
