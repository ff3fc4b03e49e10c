"""Parts started in order, watched, restarted when they die, and stopped in reverse order."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from periplus_local.stack import child as process
from periplus_local.stack import leftovers
from periplus_local.stack.part import Change, NotReadyError, OnChange, Part, PartFailedError, State

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from periplus_local.stack.child import Child
    from periplus_local.stack.home import Home

_POLL = 0.02
_POLL_LIMIT = 0.25
_BACK_OFF = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_STEADY = 30.0
"""Seconds after which a part that dies is restarted as if for the first time."""


@dataclass
class Supervisor:
    """The life of a set of parts, as an async context manager.

    Entering returns when every part is ready, or stops what was started and raises
    PartFailedError. `after` of each part names the parts that must be ready before it starts; all
    that may start together do.
    """

    home: Home
    parts: Sequence[Part]
    on_change: OnChange
    _children: dict[str, Child] = field(default_factory=dict)
    _watchers: list[asyncio.Task[None]] = field(default_factory=list)
    _lacks: dict[str, str] = field(default_factory=dict)
    _stopping: bool = False

    async def __aenter__(self) -> Self:
        """Start every part."""
        _levels(self.parts)
        ready = {part.name: asyncio.Event() for part in self.parts}
        try:
            async with asyncio.TaskGroup() as group:
                for part in self.parts:
                    group.create_task(self._first_start(part, ready))
        except BaseExceptionGroup as failures:
            await self._stop()
            failed = failures.subgroup(PartFailedError)
            raise (failed.exceptions[0] if failed else failures) from None
        except asyncio.CancelledError:
            await self._stop()
            raise
        for part in self.parts:
            if not part.once:
                self._watchers.append(asyncio.create_task(self._keep(part), name=part.name))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop every part, the last started first."""
        await self._stop()

    @property
    def children(self) -> dict[str, Child]:
        """The processes that run now, by the part's name."""
        return dict(self._children)

    async def _first_start(self, part: Part, ready: dict[str, asyncio.Event]) -> None:
        for name in part.after:
            await ready[name].wait()
        await self._start(part)
        ready[part.name].set()

    async def _start(self, part: Part) -> None:
        """Start one part and wait until it is ready. Raises PartFailedError."""
        begun = time.monotonic()
        self.on_change(Change(part.name, State.STARTING))
        try:
            async with asyncio.timeout(part.timeout):
                await self._run(part)
        except PartFailedError:
            raise
        except TimeoutError as error:
            reason = f"not ready after {part.timeout:.0f} s{self._lacks.get(part.name, '')}"
            raise self._failed(part, reason, begun) from error
        except Exception as error:
            raise self._failed(part, f"{type(error).__name__}: {error}", begun) from error
        self.on_change(Change(part.name, State.READY, time.monotonic() - begun, address=part.address))

    async def _run(self, part: Part) -> None:
        if part.prepare:
            await part.prepare()
        if part.command:
            child = await process.start(part, self.home.log / f"{part.name}.log")
            self._remember(child)
            await self._until_ready(child)
        if part.provision:
            await part.provision()

    async def _until_ready(self, child: Child) -> None:
        """Ask until the part answers. Raises PartFailedError when its process ends instead."""
        ended = asyncio.ensure_future(child.process.wait())
        pause = _POLL
        try:
            while not ended.done():
                if child.part.ready and not child.part.once:
                    try:
                        return await child.part.ready()
                    except NotReadyError as error:
                        self._lacks[child.part.name] = f": {error}"
                await asyncio.wait([ended], timeout=pause)
                pause = min(pause * 1.3, _POLL_LIMIT)
        finally:
            ended.cancel()
        code = child.process.returncode or 0
        self._forget(child)
        if child.part.once and code == 0:
            return None
        raise self._failed(child.part, process.ending(code), child.started)

    def _failed(self, part: Part, reason: str, begun: float) -> PartFailedError:
        log = self.home.log / f"{part.name}.log"
        told = f"{reason}; log: {log}\n{process.tail(log)}".rstrip() if part.command else reason
        self.on_change(Change(part.name, State.FAILED, time.monotonic() - begun, told))
        return PartFailedError(f"{part.name} {told}")

    async def _keep(self, part: Part) -> None:
        """Wait for a part to die and start it again, with longer pauses while it keeps dying."""
        deaths = 0
        while not self._stopping:
            child = self._children.get(part.name)
            if child is not None:
                code = await child.process.wait()
                if self._stopping:
                    return
                process.kill_group(child.pid)
                self._forget(child)
                deaths = 0 if time.monotonic() - child.started > _STEADY else deaths
                reason = process.ending(code)
            else:
                reason = "did not become ready"
            pause = _BACK_OFF[min(deaths, len(_BACK_OFF) - 1)]
            deaths += 1
            told = f"{reason}; starting it again in {pause} s; log: {self.home.log / part.name}.log"
            self.on_change(Change(part.name, State.RESTARTING, reason=told))
            await asyncio.sleep(pause)
            try:
                await self._start(part)
            except PartFailedError:
                await self._end(part.name)

    async def _stop(self) -> None:
        self._stopping = True
        for watcher in self._watchers:
            watcher.cancel()
        await asyncio.gather(*self._watchers, return_exceptions=True)
        for names in _levels(self.parts):
            await asyncio.gather(*(self._end(name) for name in names))
        leftovers.remove(path for part in self.parts for path in part.temporary)

    async def _end(self, name: str) -> None:
        child = self._children.get(name)
        if child is None:
            return
        seconds = await process.stop(child)
        self._forget(child)
        self.on_change(Change(name, State.STOPPED, seconds))

    def _remember(self, child: Child) -> None:
        self._children[child.part.name] = child
        self._record()

    def _forget(self, child: Child) -> None:
        self._children.pop(child.part.name, None)
        self._record()

    def _record(self) -> None:
        leftovers.record(
            self.home.run / "children.json",
            [
                leftovers.Recorded(
                    name,
                    child.pid,
                    child.born,
                    int(child.part.stop_signal),
                    tuple(map(str, child.part.temporary)),
                )
                for name, child in self._children.items()
            ],
        )


def _levels(parts: Sequence[Part]) -> list[list[str]]:
    """The parts' names for stopping: whoever is needed by nobody that still runs, together."""
    left = {part.name: part for part in parts}
    levels: list[list[str]] = []
    while left:
        needed = {name for part in left.values() for name in (*part.after, *part.uses)}
        level = [name for name in left if name not in needed]
        if not level:
            raise ValueError(f"parts wait for each other: {sorted(left)}")
        levels.append(level)
        for name in level:
            del left[name]
    return levels
