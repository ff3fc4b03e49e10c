"""The executor: runs jobs as processes of this machine, a bounded number at a time."""

import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from periplus_local.argo.executor.artifact_repository import ArtifactRepository, S3Config
from periplus_local.argo.executor.cleanup import BackgroundCleanup
from periplus_local.argo.executor.filesystem import StepFilesystem, is_under
from periplus_local.argo.executor.fork_server_client import POLL_SECONDS, ForkServerClient, wait_until_ended
from periplus_local.argo.executor.job import Job, JobResult, PodError
from periplus_local.argo.executor.job_folder import JobFolder
from periplus_local.argo.executor.log_tail import follow_lines
from periplus_local.argo.executor.masks import Masks
from periplus_local.argo.executor.root_pool import RootPool
from periplus_local.argo.executor.sandbox import Sandbox
from periplus_local.argo.executor.settings import ExecutorSettings

T = TypeVar("T")
log = logging.getLogger(__name__)


class ProcessExecutor:
    """Runs jobs in folders below `home`. An async context manager."""

    def __init__(self, home: Path, s3: S3Config, settings: ExecutorSettings | None = None) -> None:
        self._settings = settings = settings or ExecutorSettings()
        self._home = home.resolve()
        self._slots = asyncio.Semaphore(settings.slots)
        # While one job runs, another's inputs are fetched and another's outputs are stored.
        self._admitted = asyncio.Semaphore(3 * settings.slots)
        self._fork_server = ForkServerClient(
            self._home, namespaces=settings.namespaces, read_only=_program_folders(self._home)
        )
        self._artifacts = ArtifactRepository(s3, connections=2 * settings.slots + 2)
        self._roots = RootPool(self._home / ".roots", max_roots=2 * settings.slots)
        self._threads = ThreadPoolExecutor(2 * settings.slots + 2, thread_name_prefix="executor")
        self._cleanup = BackgroundCleanup(self._threads, max_tasks=4 * settings.slots)
        self._interpreter = _interpreter_folders()
        self._masks = Masks((), None)
        self._stop_requested: dict[str, bool] = {}
        self._running: dict[str, JobFolder] = {}

    @property
    def isolation(self) -> str:
        """How steps are kept apart: `mount`, `user+mount`, or `none` (paths are rewritten)."""
        return self._fork_server.support.isolation

    @property
    def isolation_reason(self) -> str:
        """Why mount namespaces do not work here; empty when they do."""
        return self._fork_server.support.reason

    @property
    def exposure(self) -> str:
        """Why steps are not confined to their own processes and files here; empty when they are."""
        return self._fork_server.support.exposure

    async def __aenter__(self) -> Self:
        self._home.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._roots.open()
        self._masks = Masks((self._home, *self._settings.hidden), self._settings.hidden_list)
        await self._fork_server.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the running jobs; these are no failures, and `adopt` gives None for them."""
        grace = self._settings.closing_grace
        await asyncio.gather(*(self._end(each, grace, closing=True) for each in self._running.values()))
        await self._fork_server.__aexit__(kind, error, trace)
        await self._cleanup.wait_for_all()
        await asyncio.to_thread(self._threads.shutdown)

    async def run(self, job: Job, on_start: Callable[[], Awaitable[None]] | None = None) -> JobResult:
        """Run a job to its end; `on_start` is awaited just before its process starts.

        Errors of the job are in its result and are not raised. When the caller is cancelled, the process goes on
        until the executor closes; when the executor closes meanwhile, this raises CancelledError.
        """
        requested = time.time()
        self._stop_requested[job.id] = False
        try:
            async with self._admitted:
                return await self._run(job, on_start)
        except (PodError, OSError) as error:
            return JobResult("Error", str(error), None, requested, time.time())
        except Exception as error:  # a defect that one step meets must not end the server
            log.exception("step %s", job.id)
            return JobResult("Error", f"{type(error).__name__}: {error}", None, requested, time.time())
        finally:
            self._stop_requested.pop(job.id, None)

    async def adopt(self, job: Job) -> JobResult | None:
        """The result of a job that an earlier server started; waits for it if it still runs.

        None: it must be run again. It takes no slot, since its process is already running.
        """
        folder = JobFolder(self._home, job.id)
        self._running[folder.path.name] = folder
        try:
            await wait_until_ended(folder)
            self._running.pop(folder.path.name, None)
            sandbox = self._sandbox(job, folder)
            if (result := folder.result()) is not None:
                await self._cleanup.add(folder.path.name, sandbox.discard)
                return result
            filesystem = sandbox.recover_filesystem()
            if folder.was_closed() or folder.ending() is None or filesystem is None:
                return None
            return await self._collect(sandbox, filesystem)
        except (PodError, OSError) as error:
            return JobResult("Error", str(error), None, time.time(), time.time())

    async def stop(self, job_id: str, grace: timedelta) -> None:
        """End a job: SIGTERM to its processes, and after `grace` SIGKILL to what is left.

        Returns when its processes have ended. A job that still waits for a slot does not start. A job that is not
        running is left as it is.
        """
        if job_id in self._stop_requested:
            self._stop_requested[job_id] = True
        await self._end(JobFolder(self._home, job_id), grace, closing=False)

    def log_path(self, job_id: str) -> Path:
        """The file with what a job printed; it may not exist yet."""
        return JobFolder(self._home, job_id).log

    def follow_log(self, job_id: str, is_cancelled: Callable[[], bool] = lambda: False) -> AsyncIterator[str]:
        """The lines that a job prints, from the first, until it has ended or `is_cancelled`."""
        folder = JobFolder(self._home, job_id)
        return follow_lines(
            folder.log, lambda: not is_cancelled() and (job_id in self._stop_requested or folder.is_running())
        )

    async def fetch(self, location: dict[str, Any], to: Path) -> None:
        """Download an S3 object to the file `to`, or the objects below its key to that folder."""
        await self._in_thread(partial(self._artifacts.get, location, to))

    async def remove(self, job_id: str) -> None:
        """Remove the log and the records of an ended job."""
        folder = JobFolder(self._home, job_id)
        await self._cleanup.wait_for(folder.path.name)
        await self._in_thread(folder.remove)

    async def _run(self, job: Job, on_start: Callable[[], Awaitable[None]] | None) -> JobResult:
        folder = JobFolder(self._home, job.id)
        if self._stop_requested[job.id]:
            return _stopped_before_start()
        await self._cleanup.wait_for(folder.path.name)
        if folder.is_running():
            raise PodError(f"the step {job.id} is still running from before")
        sandbox = self._sandbox(job, folder)
        try:
            filesystem = await self._call(sandbox.prepare, in_thread=sandbox.has_slow_inputs())
            async with self._slots:
                if self._stop_requested[job.id]:
                    await self._in_thread(sandbox.discard)
                    return _stopped_before_start()
                if on_start is not None:
                    await on_start()
                await self._run_process(folder)
        except PodError:
            await self._in_thread(sandbox.discard)
            raise
        return await self._collect(sandbox, filesystem)

    async def _collect(self, sandbox: Sandbox, filesystem: StepFilesystem) -> JobResult:
        collect = partial(sandbox.collect, filesystem)
        result = await self._call(collect, in_thread=sandbox.has_slow_outputs())
        await self._cleanup.add(sandbox.folder.path.name, lambda: sandbox.clean_up(filesystem))
        return result

    async def _run_process(self, folder: JobFolder) -> None:
        lock = folder.lock()
        if lock is None:
            raise PodError("the step is still running from before")
        self._running[folder.path.name] = folder
        error = await self._fork_server.run(folder, lock)
        self._running.pop(folder.path.name, None)
        if folder.was_closed():
            raise asyncio.CancelledError
        if error:
            raise PodError(error)

    def _sandbox(self, job: Job, folder: JobFolder) -> Sandbox:
        return Sandbox(
            job,
            folder,
            self._artifacts,
            self._roots,
            self._settings,
            interpreter=self._interpreter,
            namespaces=self.isolation != "none",
            masks=self._masks.current(),
        )

    async def _end(self, folder: JobFolder, grace: timedelta, *, closing: bool) -> None:
        signalled = False
        while folder.is_running():
            pid = folder.supervisor_pid()
            if pid is not None and not signalled:
                folder.write_stop(grace, closing=closing)
                with contextlib.suppress(ProcessLookupError):  # it has just ended by itself
                    os.kill(pid, signal.SIGTERM)
                signalled = True
            await asyncio.sleep(POLL_SECONDS)

    async def _call(self, work: Callable[[], T], *, in_thread: bool) -> T:
        # Reading or writing a few small files takes less time than handing the work to a thread.
        return await self._in_thread(work) if in_thread else work()

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)


def _stopped_before_start() -> JobResult:
    return JobResult("Failed", "stopped before it started", None, time.time(), time.time())


def _interpreter_folders() -> tuple[str, ...]:
    """The folders that this interpreter needs, so that a step's `python` is the same one."""
    # Not the working folder, which Python puts first where it runs a module: the services' is in the home.
    searched = (path for path in sys.path if path != str(Path.cwd()))
    return _outermost(os.path.realpath(path) for path in (sys.prefix, sys.base_prefix, *searched) if path)


def _program_folders(home: Path) -> tuple[str, ...]:
    """The folders with our programs, which later run outside of a step's namespaces: no step may change them."""
    ours = (path for path in sys.path if path and _has_packages_of_ours(Path(path)))
    folders = _outermost(os.path.realpath(path) for path in (sys.prefix, sys.base_prefix, *ours))
    return tuple(path for path in folders if path != "/" and not is_under(str(home), path))


def _has_packages_of_ours(folder: Path) -> bool:
    return (folder / "periplus").is_dir() or any(folder.glob("periplus_*/__init__.py"))


def _outermost(given: Iterable[str]) -> tuple[str, ...]:
    """The paths that lie below no other."""
    paths = set(given)
    return tuple(
        path for path in paths if not any(path != other and is_under(path, other) for other in paths)
    )
