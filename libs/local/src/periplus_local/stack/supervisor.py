"""Starts processes in the order of their dependencies, restarts those that end, and stops them in reverse order."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from periplus_local.stack import orphans, running_process
from periplus_local.stack.process import (
    NotReadyError,
    OnChange,
    ProcessFailedError,
    ProcessSpec,
    ProcessState,
    StateChange,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from types import TracebackType

    from periplus_local.stack.home import Home
    from periplus_local.stack.running_process import RunningProcess

_FIRST_POLL_SECONDS, _MAX_POLL_SECONDS, _POLL_FACTOR = 0.02, 0.25, 1.3
_RESTART_DELAYS_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_RESET_DELAYS_AFTER_SECONDS = 30.0
"""A process that ran for so long is restarted with the first delay."""


@dataclass
class Supervisor:
    """Runs a set of processes, as an async context manager.

    Entering returns when every process is ready, or stops what was started and raises
    ProcessFailedError. Processes that do not depend on each other start at the same time.
    """

    home: Home
    specs: Sequence[ProcessSpec]
    on_change: OnChange
    _running: dict[str, RunningProcess] = field(default_factory=dict)
    _watchers: list[asyncio.Task[None]] = field(default_factory=list)
    _not_ready_reasons: dict[str, str] = field(default_factory=dict)
    _stopping: bool = False

    async def __aenter__(self) -> Self:
        """Start every process."""
        _stop_levels(self.specs)
        ready = {spec.name: asyncio.Event() for spec in self.specs}
        try:
            async with asyncio.TaskGroup() as group:
                for spec in self.specs:
                    group.create_task(self._first_start(spec, ready))
        except BaseExceptionGroup as failures:
            await self._stop_all()
            failed = failures.subgroup(ProcessFailedError)
            raise (failed.exceptions[0] if failed else failures) from None
        except asyncio.CancelledError:
            await self._stop_all()
            raise
        for spec in self.specs:
            if not spec.is_job:
                self._watchers.append(asyncio.create_task(self._keep_running(spec), name=spec.name))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop every process, the last started first."""
        await self._stop_all()

    @property
    def running(self) -> dict[str, RunningProcess]:
        """The processes that run now, by name."""
        return dict(self._running)

    async def _first_start(self, spec: ProcessSpec, ready: dict[str, asyncio.Event]) -> None:
        for name in spec.depends_on:
            await ready[name].wait()
        await self._start(spec)
        ready[spec.name].set()

    async def _start(self, spec: ProcessSpec) -> None:
        """Start a process and wait until it is ready. Raises ProcessFailedError."""
        begun = time.monotonic()
        self.on_change(StateChange(spec.name, ProcessState.STARTING))
        try:
            async with asyncio.timeout(spec.start_timeout_seconds):
                await self._prepare_and_run(spec)
        except ProcessFailedError:
            raise
        except TimeoutError as error:
            reason = f"not ready after {spec.start_timeout_seconds:.0f} s{self._not_ready_reasons.get(spec.name, '')}"
            raise self._failed(spec, reason, begun) from error
        except Exception as error:
            raise self._failed(spec, f"{type(error).__name__}: {error}", begun) from error
        self.on_change(
            StateChange(spec.name, ProcessState.READY, time.monotonic() - begun, address=spec.address)
        )

    async def _prepare_and_run(self, spec: ProcessSpec) -> None:
        if spec.prepare:
            await spec.prepare()
        if spec.command:
            running = await running_process.start(spec, self._log(spec))
            self._add(running)
            await self._until_ready(running)
        if spec.provision:
            await spec.provision()

    async def _until_ready(self, running: RunningProcess) -> None:
        """Check until the process is ready. Raises ProcessFailedError when it ends before."""
        spec = running.spec
        ended = asyncio.ensure_future(running.process.wait())
        delay = _FIRST_POLL_SECONDS
        try:
            while not ended.done():
                if spec.ready and not spec.is_job:
                    try:
                        return await spec.ready()
                    except NotReadyError as error:
                        self._not_ready_reasons[spec.name] = f": {error}"
                await asyncio.wait([ended], timeout=delay)
                delay = min(delay * _POLL_FACTOR, _MAX_POLL_SECONDS)
        finally:
            ended.cancel()
        code = running.process.returncode or 0
        self._remove(running)
        if spec.is_job and code == 0:
            return None
        raise self._failed(spec, running_process.describe_exit(code), running.started)

    def _failed(self, spec: ProcessSpec, reason: str, begun: float) -> ProcessFailedError:
        if spec.command:
            log = self._log(spec)
            reason = f"{reason}; log: {log}\n{running_process.tail(log)}".rstrip()
        self.on_change(StateChange(spec.name, ProcessState.FAILED, time.monotonic() - begun, reason))
        return ProcessFailedError(f"{spec.name} {reason}")

    async def _keep_running(self, spec: ProcessSpec) -> None:
        """Restart a process whenever it ends, with longer delays while it keeps ending."""
        restarts = 0
        while not self._stopping:
            running = self._running.get(spec.name)
            if running is not None:
                code = await running.process.wait()
                if self._stopping:
                    return
                running_process.kill_group(running.pid)
                self._remove(running)
                if time.monotonic() - running.started > _RESET_DELAYS_AFTER_SECONDS:
                    restarts = 0
                reason = running_process.describe_exit(code)
            else:
                reason = "did not become ready"
            delay = _RESTART_DELAYS_SECONDS[min(restarts, len(_RESTART_DELAYS_SECONDS) - 1)]
            restarts += 1
            reason = f"{reason}; starting it again in {delay} s; log: {self._log(spec)}"
            self.on_change(StateChange(spec.name, ProcessState.RESTARTING, reason=reason))
            await asyncio.sleep(delay)
            try:
                await self._start(spec)
            except ProcessFailedError:
                await self._stop(spec.name)

    async def _stop_all(self) -> None:
        self._stopping = True
        for watcher in self._watchers:
            watcher.cancel()
        await asyncio.gather(*self._watchers, return_exceptions=True)
        for names in _stop_levels(self.specs):
            await asyncio.gather(*(self._stop(name) for name in names))
        orphans.remove(path for spec in self.specs for path in spec.temporary)

    async def _stop(self, name: str) -> None:
        running = self._running.get(name)
        if running is None:
            return
        seconds = await running_process.stop(running)
        self._remove(running)
        self.on_change(StateChange(name, ProcessState.STOPPED, seconds))

    def _log(self, spec: ProcessSpec) -> Path:
        return self.home.log / f"{spec.name}.log"

    def _add(self, running: RunningProcess) -> None:
        self._running[running.spec.name] = running
        self._record()

    def _remove(self, running: RunningProcess) -> None:
        self._running.pop(running.spec.name, None)
        self._record()

    def _record(self) -> None:
        orphans.write_records(
            self.home.run / "processes.json",
            [
                orphans.ProcessRecord(
                    name,
                    running.pid,
                    running.start_time,
                    int(running.spec.stop_signal),
                    tuple(map(str, running.spec.temporary)),
                )
                for name, running in self._running.items()
            ],
        )


def _stop_levels(specs: Sequence[ProcessSpec]) -> list[list[str]]:
    """The names in the order of stopping: those of one level are stopped at the same time.

    Raises ValueError where processes depend on each other in a circle.
    """
    left = {spec.name: spec for spec in specs}
    levels: list[list[str]] = []
    while left:
        needed = {name for spec in left.values() for name in (*spec.depends_on, *spec.stops_before)}
        level = [name for name in left if name not in needed]
        if not level:
            raise ValueError(f"processes depend on each other in a circle: {sorted(left)}")
        levels.append(level)
        for name in level:
            del left[name]
    return levels
