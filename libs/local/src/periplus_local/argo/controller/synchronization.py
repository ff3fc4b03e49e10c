"""Limits on what runs at the same time: `parallelism` and mutexes."""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager


class LockWaitCancelledError(Exception):
    """The wait for a mutex was cancelled, because the workflow is to end."""


class Slots:
    """Slots for steps, given out first come first served; `limit` None or 0 means no limit."""

    def __init__(self, limit: int | None) -> None:
        self._semaphore = asyncio.Semaphore(limit) if limit else None

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[None]:
        """Hold one slot."""
        if self._semaphore is None:
            yield
            return
        async with self._semaphore:
            yield


class Mutexes:
    """The mutexes of the server by name; each has one holder and a queue."""

    def __init__(self) -> None:
        self._holders: dict[str, str] = {}
        self._queues: dict[str, OrderedDict[str, asyncio.Future[None]]] = {}

    @asynccontextmanager
    async def hold_all(
        self, names: Iterable[str], owner: str, on_wait: Callable[[str], None]
    ) -> AsyncIterator[None]:
        """Hold all mutexes of those names (each "namespace/Mutex/name"), acquired in the order of names.

        `on_wait` is called with the name of each that another owner holds.
        """
        async with AsyncExitStack() as stack:
            for name in sorted(set(names)):
                await stack.enter_async_context(self._hold(name, owner, on_wait))
            yield

    @asynccontextmanager
    async def _hold(self, name: str, owner: str, on_wait: Callable[[str], None]) -> AsyncIterator[None]:
        queue = self._queues.setdefault(name, OrderedDict())
        if self._holders.get(name, owner) != owner:
            acquired = queue[owner] = asyncio.get_running_loop().create_future()
            on_wait(name)
            try:
                await acquired
            except asyncio.CancelledError:
                if self._holders.get(name) == owner:
                    self._release(name)
                else:
                    queue.pop(owner, None)
                raise
        self._holders[name] = owner
        try:
            yield
        finally:
            self._release(name)

    def restore(self, name: str, owner: str) -> None:
        """Give a mutex to the owner that held it before a restart; the owner's `hold_all` then does not wait."""
        self._holders[name] = owner

    def cancel_waits(self, owner_prefix: str) -> None:
        """End the waits of the owners with this prefix with LockWaitCancelledError."""
        for queue in self._queues.values():
            for owner in [owner for owner in queue if owner.startswith(owner_prefix)]:
                queue.pop(owner).set_exception(LockWaitCancelledError())

    def _release(self, name: str) -> None:
        queue = self._queues.get(name)
        if queue:
            owner, acquired = queue.popitem(last=False)
            self._holders[name] = owner
            acquired.set_result(None)
        else:
            self._holders.pop(name, None)
            self._queues.pop(name, None)


def mutex_names(synchronization: dict[str, object] | None, namespace: str) -> list[str]:
    """The mutexes of a `synchronization`."""
    listed = (synchronization or {}).get("mutexes") or ()
    assert isinstance(listed, list | tuple)
    return [f"{item.get('namespace') or namespace}/Mutex/{item['name']}" for item in listed]
