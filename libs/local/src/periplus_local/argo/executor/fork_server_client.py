"""The executor's side of the fork server: starts it, hands it steps, learns when they have ended."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from periplus_local.argo.executor.job import PodError
from periplus_local.argo.executor.job_folder import JobFolder
from periplus_local.argo.executor.mount_namespace import Support

POLL_SECONDS = 0.05
MODULE = "periplus_local.argo.executor.fork_server"
LOG = "fork-server.log"


class ForkServerClient:
    """Keeps a fork server running while the context is entered; starts it again when it dies."""

    def __init__(self, home: Path, *, namespaces: bool, read_only: tuple[str, ...]) -> None:
        """`read_only` are folders that no confined step may change."""
        self._home = home
        self._namespaces = namespaces
        self._read_only = read_only
        self.support = Support("none", "not started", "not started")
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        self._reader: asyncio.Task[None] | None = None
        self._ended: dict[str, asyncio.Future[str]] = {}
        self._polls: list[asyncio.Task[None]] = []
        self._starting = asyncio.Lock()

    async def __aenter__(self) -> Self:
        self._channel = await self._start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        tasks = [*self._polls, *filter(None, [self._reader])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for ended in self._ended.values():
            ended.cancel()
        if self._channel is not None:
            self._channel.close()  # the fork server ends when it reads end of file
        if self._process is not None:
            await asyncio.to_thread(self._process.wait)

    async def run(self, folder: JobFolder, lock: int) -> str:
        """Have the step of `folder` run and wait for its end; takes over the descriptor `lock` and closes it.

        Gives the error of the fork server or the supervisor, else the empty string; how the step itself ended is
        in the folder's record.
        """
        name = str(folder.path)
        ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._ended[name] = ended
        try:
            try:
                await self._send(os.fsencode(name) + b"\n", lock)
            finally:
                os.close(lock)
            return await ended
        finally:
            self._ended.pop(name, None)

    async def _send(self, message: bytes, lock: int) -> None:
        async with self._starting:
            if self._channel is None or self._channel.fileno() < 0:
                self._channel = await self._start()
            try:
                socket.send_fds(self._channel, [message], [lock])
            except (BrokenPipeError, ConnectionResetError):  # it died a moment ago
                self._channel = await self._start()
                socket.send_fds(self._channel, [message], [lock])

    async def _start(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        with tempfile.TemporaryDirectory(dir=self._home, prefix=".probe-") as probe:
            with theirs, (self._home / LOG).open("ab") as log:
                self._process = subprocess.Popen(  # noqa: ASYNC220, S603 - once, and our own module
                    [
                        *(sys.executable, "-I", "-m", MODULE, probe),
                        "yes" if self._namespaces else "no",
                        *self._read_only,
                    ],
                    stdin=theirs.fileno(),
                    stdout=log,
                    stderr=log,
                    cwd=self._home,
                    start_new_session=True,
                )
            ours.setblocking(False)
            hello = await self._receive(ours)
        if not hello:
            raise PodError(f"the fork server did not start; see {self._home / LOG}")
        self.support = Support(**json.loads(hello))
        self._reader = asyncio.create_task(self._read(ours, self._process))
        return ours

    async def _read(self, channel: socket.socket, process: subprocess.Popen[bytes]) -> None:
        """Resolve the futures of ended steps until the fork server has ended."""
        unread = b""
        with channel:
            while chunk := await self._receive(channel):
                *lines, unread = (unread + chunk).split(b"\n")
                for line in lines:
                    message = json.loads(line)
                    self._set_ended(message["ended"], _error_of(int(message["status"])))
        await asyncio.to_thread(process.wait)
        # The supervisors go on without the fork server; each holds the lock of its folder until it ends.
        self._polls = [asyncio.create_task(self._poll(name)) for name in self._ended]

    async def _receive(self, channel: socket.socket) -> bytes:
        try:
            return await asyncio.get_running_loop().sock_recv(channel, 65536)
        except ConnectionResetError:
            return b""

    async def _poll(self, name: str) -> None:
        path = Path(name)
        await wait_until_ended(JobFolder(path.parent, path.name))
        self._set_ended(name, "")

    def _set_ended(self, name: str, error: str) -> None:
        ended = self._ended.get(name)
        if ended is not None and not ended.done():
            ended.set_result(error)


async def wait_until_ended(folder: JobFolder) -> None:
    """Wait until no supervisor holds the lock of this folder."""
    while folder.is_running():  # noqa: ASYNC110 - a file lock cannot be awaited
        await asyncio.sleep(POLL_SECONDS)


def _error_of(status: int) -> str:
    """What went wrong in a supervisor with this exit status; empty for 0."""
    if status < 0:
        return f"the supervisor of this step was killed by signal {-status}"
    return f"cannot start the step: {os.strerror(status)} (see {LOG})" if status else ""
