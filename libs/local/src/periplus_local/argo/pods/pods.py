"""The executor: runs jobs as processes, a bounded number at a time, and tells how each ended."""

import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from periplus_local.argo.pods.folder import Folder
from periplus_local.argo.pods.following import lines
from periplus_local.argo.pods.job import Done, Job, PodError
from periplus_local.argo.pods.launching import POLL_SECONDS, Launching, gone
from periplus_local.argo.pods.roots import Roots
from periplus_local.argo.pods.sandbox import Sandbox
from periplus_local.argo.pods.store import Artifacts, S3Store
from periplus_local.argo.pods.tidying import Tidying
from periplus_local.argo.pods.view import View, under

T = TypeVar("T")
log = logging.getLogger(__name__)
LOG_BYTES = 64 << 20
GRACE_SECONDS = 30.0
CLOSING_GRACE_SECONDS = 5.0


class Pods:
    """Runs jobs below `home`; at most `slots` at a time. An async context manager.

    `visible` are folders below /tmp that steps may see, besides this interpreter's own. `grace`
    (seconds) lies between SIGTERM and SIGKILL when a job's deadline passes. `log_bytes` bounds the
    log of a job. With `namespaces` false, declared paths are rewritten even where they need not be.
    """

    def __init__(
        self,
        home: Path,
        store: S3Store,
        slots: int = os.cpu_count() or 1,
        *,
        visible: Sequence[Path] = (),
        grace: float = GRACE_SECONDS,
        log_bytes: int = LOG_BYTES,
        namespaces: bool = True,
    ) -> None:
        self._home = home.resolve()
        self._slots = asyncio.Semaphore(slots)
        # While one job runs, another's inputs are fetched and another's outputs are stored.
        self._places = asyncio.Semaphore(3 * slots)
        self._launching = Launching(self._home, namespaces=namespaces)
        self._artifacts = Artifacts(store, connections=2 * slots + 2)
        self._roots = Roots(self._home / ".roots", most=2 * slots)
        self._threads = ThreadPoolExecutor(2 * slots + 2, thread_name_prefix="pods")
        self._tidying = Tidying(self._threads, most=4 * slots)
        self._visible = [str(path.resolve()) for path in visible] + _interpreter()
        self._grace = grace
        self._log_bytes = log_bytes
        self._open: dict[str, bool] = {}
        self._launched: dict[str, Folder] = {}

    @property
    def isolation(self) -> str:
        """How steps are kept apart: `mount`, `user+mount`, or `none` (paths are rewritten)."""
        return self._launching.isolation

    @property
    def isolation_reason(self) -> str:
        """Why steps are kept apart no better; empty when they are."""
        return self._launching.reason

    async def __aenter__(self) -> Self:
        self._home.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._roots.open()
        await self._launching.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End what still runs; those jobs are no failures, and `adopt` gives None for them."""
        running = self._launched.values()
        await asyncio.gather(*(self._end(each, CLOSING_GRACE_SECONDS, closing=True) for each in running))
        await self._launching.__aexit__(kind, error, trace)
        await self._tidying.all_over()
        await asyncio.to_thread(self._threads.shutdown)

    async def run(self, job: Job, on_start: Callable[[], Awaitable[None]] | None = None) -> Done:
        """Run a job to its end; `on_start` is awaited when its process is about to start.

        Whatever goes wrong with the job is told by its Done; nothing is raised for it. When the
        caller is cancelled, the process goes on until the executor closes; when the executor
        closes meanwhile, this raises CancelledError.
        """
        asked = time.time()
        self._open[job.id] = False
        try:
            async with self._places:
                return await self._attempt(job, on_start)
        except (PodError, OSError) as error:
            return Done("Error", str(error), None, asked, time.time())
        except Exception as error:  # one step's trouble must not become the server's
            log.exception("step %s", job.id)
            return Done("Error", f"{type(error).__name__}: {error}", None, asked, time.time())
        finally:
            self._open.pop(job.id, None)

    async def adopt(self, job: Job) -> Done | None:
        """What became of a job that an earlier server started; waits for it if it still runs.

        None: it must be run again. It takes no slot, since its process has one already.
        """
        folder = Folder(self._home, job.id)
        self._launched[folder.path.name] = folder
        try:
            await gone(folder)
            self._launched.pop(folder.path.name, None)
            sandbox = self._sandbox(job, folder)
            if (done := folder.done()) is not None:
                await self._tidying.add(folder.path.name, sandbox.give_up)
                return done
            view = sandbox.replan()
            if folder.closed() or folder.ending() is None or view is None:
                return None
            return await self._collect(sandbox, view)
        except (PodError, OSError) as error:
            return Done("Error", str(error), None, time.time(), time.time())

    async def stop(self, job_id: str, grace: float) -> None:
        """End a job: SIGTERM to its processes, and after `grace` seconds SIGKILL to what is left.

        Returns when its processes are gone. A job that still waits for a slot never starts.
        """
        if job_id in self._open:
            self._open[job_id] = True
        await self._end(Folder(self._home, job_id), grace, closing=False)

    def logs(self, job_id: str) -> Path:
        """The file with what a job printed; it may not be there yet."""
        return Folder(self._home, job_id).log

    def follow(self, job_id: str, over: Callable[[], bool] = lambda: False) -> AsyncIterator[str]:
        """The lines that a job prints, from the first, until it has ended or `over` says so."""
        folder = Folder(self._home, job_id)
        return lines(folder.log, lambda: not over() and (job_id in self._open or folder.alive()))

    async def fetch(self, place: dict[str, Any], to: Path) -> None:
        """Bring an object of the store to the file `to`, or what is below its key to that folder."""
        await self._thread(partial(self._artifacts.get, place, to))

    async def remove(self, job_id: str) -> None:
        """Forget an ended job: its log and its records."""
        folder = Folder(self._home, job_id)
        await self._tidying.over(folder.path.name)
        await self._thread(folder.remove)

    async def _attempt(self, job: Job, on_start: Callable[[], Awaitable[None]] | None) -> Done:
        folder = Folder(self._home, job.id)
        if self._open[job.id]:
            return _stopped()
        await self._tidying.over(folder.path.name)
        if folder.alive():
            raise PodError(f"the step {job.id} is still running from before")
        sandbox = self._sandbox(job, folder)
        try:
            view = await self._work(sandbox.prepare, threaded=sandbox.fetches())
            async with self._slots:
                if self._open[job.id]:
                    await self._thread(sandbox.give_up)
                    return _stopped()
                if on_start is not None:
                    await on_start()
                await self._process(folder)
        except PodError:
            await self._thread(sandbox.give_up)
            raise
        return await self._collect(sandbox, view)

    async def _collect(self, sandbox: Sandbox, view: View) -> Done:
        done = await self._work(lambda: sandbox.collect(view), threaded=sandbox.stores())
        await self._tidying.add(sandbox.folder.path.name, lambda: sandbox.tidy(view))
        return done

    async def _process(self, folder: Folder) -> None:
        lock = folder.lock()
        if lock is None:
            raise PodError("the step is still running from before")
        self._launched[folder.path.name] = folder
        fault = await self._launching.run(folder, lock)
        self._launched.pop(folder.path.name, None)
        if folder.closed():
            raise asyncio.CancelledError
        if fault:
            raise PodError(fault)

    def _sandbox(self, job: Job, folder: Folder) -> Sandbox:
        return Sandbox(
            job,
            folder,
            self._artifacts,
            self._roots,
            visible=tuple(self._visible),
            namespaces=self._launching.isolation != "none",
            log_bytes=self._log_bytes,
            grace=self._grace,
        )

    async def _end(self, folder: Folder, grace: float, *, closing: bool) -> None:
        told = False
        while folder.alive():
            pid = folder.attempt_pid()
            if pid is not None and not told:
                folder.write_stop(grace, closing=closing)
                with contextlib.suppress(ProcessLookupError):  # it has just ended by itself
                    os.kill(pid, signal.SIGTERM)
                told = True
            await asyncio.sleep(POLL_SECONDS)

    async def _work(self, work: Callable[[], T], *, threaded: bool) -> T:
        # A few small files take less time than a thread needs to come to its turn.
        return await self._thread(work) if threaded else work()

    async def _thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)


def _stopped() -> Done:
    return Done("Failed", "stopped before it started", None, time.time(), time.time())


def _interpreter() -> list[str]:
    """The folders that this interpreter needs, so that a step's `python` is the same one."""
    paths = {os.path.realpath(path) for path in (sys.prefix, sys.base_prefix, *sys.path) if path}
    return [path for path in paths if not any(path != other and under(path, other) for other in paths)]
