"""Who is told when the facts of a run have changed: one LISTEN connection a process, whoever wrote."""

import asyncio
import json
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import asyncpg

log = logging.getLogger(__name__)

CHANNEL = "lineage"
_PAUSE = 1.0  # seconds before the connection is made again
_ALIVE = 10.0  # seconds between looks whether the connection lives


class Notices:
    """An alarm for each who follows a run."""

    def __init__(self) -> None:
        self._followers: dict[tuple[str, str], set[asyncio.Event]] = defaultdict(set)
        self.over = False
        """Whether the process is about to end: whoever follows asks another one."""

    @contextmanager
    def following(self, project: str, run: str) -> Iterator[asyncio.Event]:
        """An event that is set whenever the run may have changed. Whoever waits for it clears it."""
        alarm = asyncio.Event()
        key = (project, run)
        self._followers[key].add(alarm)
        try:
            yield alarm
        finally:
            self._followers[key].discard(alarm)
            if not self._followers[key]:
                del self._followers[key]

    def ring(self, project: str, run: str) -> None:
        """Wake those who follow a run."""
        for alarm in self._followers.get((project, run), ()):
            alarm.set()

    def ring_all(self) -> None:
        """Wake everybody: notices may have been lost."""
        for alarms in self._followers.values():
            for alarm in alarms:
                alarm.set()

    @contextmanager
    def until_over(self) -> Iterator[None]:
        """Leaving the block, all who follow are told to stop, so that nobody waits for them."""
        try:
            yield
        finally:
            self.over = True
            self.ring_all()


@asynccontextmanager
async def listening(dsn: str) -> AsyncIterator[Notices]:
    """Notices for as long as the block is open. Without Postgres they pause, and then all are woken."""
    notices = Notices()
    async with asyncio.TaskGroup() as tasks:
        ear = tasks.create_task(_listen(dsn, notices))
        try:
            yield notices
        finally:
            ear.cancel()


async def _listen(dsn: str, notices: Notices) -> None:
    def heard(*told: object) -> None:
        for project, run in json.loads(str(told[-1])):
            notices.ring(project, run)

    while True:
        try:
            connection = await asyncpg.connect(dsn, timeout=10)
            lost = asyncio.Event()
            connection.add_termination_listener(lambda _, lost=lost: lost.set())
            try:
                schema = await connection.fetchval("SELECT current_schema()")
                await connection.add_listener(f"{CHANNEL}_{schema}", heard)
                notices.ring_all()
                while not connection.is_closed():
                    await connection.execute("SELECT", timeout=10)
                    await _until(lost, _ALIVE)
            finally:
                connection.terminate()
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            log.warning("no notices until Postgres is there again: %s", error)
            await asyncio.sleep(_PAUSE)


async def _until(lost: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(lost.wait(), seconds)
    except TimeoutError:
        return
