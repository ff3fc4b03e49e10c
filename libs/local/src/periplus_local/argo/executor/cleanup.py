"""Removal of what a step has written, and the background tasks that do it."""

import asyncio
import errno
import os
import shutil
import uuid
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path

MOUNTS = Path("/proc/self/mounts")


class BackgroundCleanup:
    """Cleanup tasks in threads, at most `max_tasks` at a time, by the name of the folder each is about."""

    def __init__(self, threads: Executor, max_tasks: int) -> None:
        self._threads = threads
        self._slots = asyncio.Semaphore(max_tasks)
        self._tasks: dict[str, asyncio.Future[None]] = {}

    async def add(self, name: str, task: Callable[[], None]) -> None:
        """Start a task; waits only while `max_tasks` others are running."""
        await self._slots.acquire()
        started = asyncio.get_running_loop().run_in_executor(self._threads, task)
        self._tasks[name] = started
        started.add_done_callback(lambda _: self._finished(name))

    async def wait_for(self, name: str) -> None:
        """Wait until no task works on this folder."""
        if name in self._tasks:
            await asyncio.wait([self._tasks[name]])

    async def wait_for_all(self) -> None:
        """Wait until no task is running."""
        if self._tasks:
            await asyncio.wait(list(self._tasks.values()))

    def _finished(self, name: str) -> None:
        self._slots.release()
        self._tasks.pop(name, None)


def remove(path: Path) -> None:
    """Remove a file, a link or a whole folder if it exists; links are not followed.

    A step's mounts exist in its own mount namespace only. Should one be visible here, its content belongs to
    the host: then nothing is removed and OSError is raised.
    """
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    _refuse_mounts(path)
    try:
        shutil.rmtree(path)
    except (OSError, RecursionError):  # no permission, or deeper than a path or Python's stack can be
        _remove_flattened(path)


def _refuse_mounts(path: Path) -> None:
    listed = str(path).replace(" ", "\\040")
    if MOUNTS.exists() and f" {listed}/" in MOUNTS.read_text(errors="replace"):
        raise OSError(errno.EBUSY, "something is mounted in the folder of a step", str(path))


def _remove_flattened(top: Path) -> None:
    """Remove a folder however deep it is: a folder below another is moved up into `top` before it is emptied itself."""
    top.chmod(0o700)
    prefix, moved = f"removed-{uuid.uuid4().hex}", 0
    pending = _folders_of(top)
    while pending:
        folder = pending.pop()
        for below in _folders_of(folder):
            moved += 1
            pending.append(below.rename(top / f"{prefix}-{moved}"))
        folder.rmdir()
    top.rmdir()


def _folders_of(folder: Path) -> list[Path]:
    """The folders in a folder, writable, as they must be to be moved; all else in it is removed."""
    with os.scandir(folder) as found:
        entries = [(Path(entry.path), entry.is_dir(follow_symlinks=False)) for entry in found]
    for path, is_folder in entries:
        if is_folder:
            path.chmod(0o700)
        else:
            path.unlink()
    return [path for path, is_folder in entries if is_folder]
