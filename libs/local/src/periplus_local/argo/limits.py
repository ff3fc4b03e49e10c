"""What holds steps back: `parallelism`, fail-fast templates and mutexes."""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager

Waiting = Callable[[str], None]


class Abandoned(Exception):
    """The wait for a mutex was given up, because the workflow is to end."""


class Slots:
    """A number of places; who comes first gets the first free one. No number: no limit."""

    def __init__(self, places: int | None) -> None:
        """So many places."""
        self._places = asyncio.Semaphore(places) if places else None

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """Hold a place."""
        if self._places is None:
            yield
            return
        async with self._places:
            yield


class Mutexes:
    """The mutexes of the server by name; each has one holder and a queue."""

    def __init__(self) -> None:
        """None is held."""
        self._held: dict[str, str] = {}
        self._queues: dict[str, OrderedDict[str, asyncio.Future[None]]] = {}

    @asynccontextmanager
    async def all(self, names: Iterable[str], owner: str, waiting: Waiting) -> AsyncIterator[None]:
        """Hold all mutexes of those names (each "namespace/Mutex/name"), taken in the order of names.

        `waiting` is called with the name of the one that another holds.
        """
        async with AsyncExitStack() as stack:
            for name in sorted(set(names)):
                await stack.enter_async_context(self._one(name, owner, waiting))
            yield

    @asynccontextmanager
    async def _one(self, name: str, owner: str, waiting: Waiting) -> AsyncIterator[None]:
        queue = self._queues.setdefault(name, OrderedDict())
        if self._held.get(name, owner) != owner:
            turn = queue[owner] = asyncio.get_running_loop().create_future()
            waiting(name)
            try:
                await turn
            except asyncio.CancelledError:
                if self._held.get(name) == owner:
                    self._pass_on(name)
                else:
                    queue.pop(owner, None)
                raise
        self._held[name] = owner
        try:
            yield
        finally:
            self._pass_on(name)

    def restore(self, name: str, owner: str) -> None:
        """Give a mutex to the owner that had it before a restart; it will take it up."""
        self._held[name] = owner

    def abandon(self, owner: str) -> None:
        """Give up the waits of the owners whose name begins so: each ends with Abandoned."""
        for queue in self._queues.values():
            for waiter in [waiter for waiter in queue if waiter.startswith(owner)]:
                queue.pop(waiter).set_exception(Abandoned())

    def _pass_on(self, name: str) -> None:
        queue = self._queues.get(name)
        if queue:
            owner, turn = queue.popitem(last=False)
            self._held[name] = owner
            turn.set_result(None)
        else:
            self._held.pop(name, None)
            self._queues.pop(name, None)


def mutex_names(synchronization: dict[str, object] | None, namespace: str) -> list[str]:
    """The mutexes that a `synchronization` names."""
    listed = (synchronization or {}).get("mutexes") or ()
    assert isinstance(listed, list | tuple)
    return [f"{item.get('namespace') or namespace}/Mutex/{item['name']}" for item in listed]
