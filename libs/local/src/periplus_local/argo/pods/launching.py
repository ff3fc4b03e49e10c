"""The server's end of the launcher: starts it, hands it steps, learns when they have ended."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from periplus_local.argo.pods.folder import Folder
from periplus_local.argo.pods.job import PodError
from periplus_local.argo.pods.namespace import Isolation

POLL_SECONDS = 0.05
MODULE = "periplus_local.argo.pods.launcher"


class Launching:
    """The launcher, from the first step to the last; started again when it dies."""

    def __init__(self, home: Path, *, namespaces: bool) -> None:
        self._home = home
        self._namespaces = namespaces
        self.isolation: Isolation = "none"
        self.reason = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        self._reading: asyncio.Task[None] | None = None
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
        tasks = [*self._polls, *filter(None, [self._reading])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for ended in self._ended.values():
            ended.cancel()
        if self._channel is not None:
            self._channel.close()  # by this the launcher knows
        if self._process is not None:
            await asyncio.to_thread(self._process.wait)

    async def run(self, folder: Folder, lock: int) -> str:
        """Start the attempt of `folder` and wait for its end; `lock` is the folder's, and is closed.

        Gives a fault of the launcher, or the empty string; the folder's record tells the rest.
        """
        name = str(folder.path)
        ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._ended[name] = ended
        try:
            try:
                await self._hand_over(os.fsencode(name) + b"\n", lock)
            finally:
                os.close(lock)
            return await ended
        finally:
            self._ended.pop(name, None)

    async def _hand_over(self, message: bytes, lock: int) -> None:
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
            with theirs, (self._home / "launcher.log").open("ab") as log:
                self._process = subprocess.Popen(  # noqa: ASYNC220, S603 - once, and our own module
                    [sys.executable, "-I", "-m", MODULE, probe, *([] if self._namespaces else ["none"])],
                    stdin=theirs.fileno(),
                    stdout=log,
                    stderr=log,
                    cwd=self._home,
                    start_new_session=True,
                )
            ours.setblocking(False)
            hello = await self._receive(ours)
        if not hello:
            raise PodError(f"the launcher did not start; see {self._home / 'launcher.log'}")
        told = json.loads(hello)
        self.isolation, self.reason = told["isolation"], told["reason"]
        self._reading = asyncio.create_task(self._read(ours, self._process))
        return ours

    async def _read(self, channel: socket.socket, process: subprocess.Popen[bytes]) -> None:
        """Pass on what the launcher tells, until it is gone."""
        unread = b""
        with channel:
            while piece := await self._receive(channel):
                *lines, unread = (unread + piece).split(b"\n")
                for line in lines:
                    told = json.loads(line)
                    self._settle(told["ended"], _fault(told))
        await asyncio.to_thread(process.wait)
        # Its attempts go on without it; their locks tell when they end.
        self._polls = [asyncio.create_task(self._poll(name)) for name in self._ended]

    async def _receive(self, channel: socket.socket) -> bytes:
        try:
            return await asyncio.get_running_loop().sock_recv(channel, 65536)
        except ConnectionResetError:
            return b""

    async def _poll(self, name: str) -> None:
        path = Path(name)
        await gone(Folder(path.parent, path.name))
        self._settle(name, "")

    def _settle(self, name: str, fault: str) -> None:
        ended = self._ended.get(name)
        if ended is not None and not ended.done():
            ended.set_result(fault)


async def gone(folder: Folder) -> None:
    """Wait until no attempt of this folder lives."""
    while folder.alive():  # noqa: ASYNC110 - a lock tells nobody that it is free
        await asyncio.sleep(POLL_SECONDS)


def _fault(told: dict[str, Any]) -> str:
    status = int(told["status"])
    if status < 0:
        return f"the launcher of this step was killed by signal {-status}"
    return f"cannot start the step: {os.strerror(status)} (see launcher.log)" if status else ""
