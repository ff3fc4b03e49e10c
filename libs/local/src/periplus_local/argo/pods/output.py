"""What a step prints: kept on disk, as much as is allowed, and no more of it in memory."""

# Paths are strings here: they go to system calls in a process that must start quickly.
# ruff: noqa: PTH123

import os
import select
import time

CHUNK = 1 << 16
# Argo keeps the last 256 kB of the standard output; one more byte for the newline it trims.
RESULT_BYTES = 256 * 1024
KEPT_BYTES = RESULT_BYTES + 1


class Output:
    """Copies a step's two pipes to `log`, and keeps the end of its standard output in `stdout`."""

    def __init__(self, folder: str, limit: int, capture: bool, out: int, err: int) -> None:
        self._folder = folder
        self._log = os.open(f"{folder}/log", os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
        self._left = limit
        self._limit = limit
        self._capture = capture
        self._out = out
        self._end = bytearray()
        self.open = [out, err]
        self.fault = ""
        for pipe in self.open:
            os.set_blocking(pipe, False)

    def pump(self, ready: list[int]) -> None:
        """Copy one piece of each pipe that has some."""
        for pipe in [p for p in self.open if p in ready]:
            try:
                piece = os.read(pipe, CHUNK)
            except BlockingIOError:
                continue
            if not piece:
                self.open.remove(pipe)
                os.close(pipe)
                continue
            if pipe == self._out and self._capture:
                self._remember(piece)
            self._keep(piece)

    def drain(self, seconds: float) -> None:
        """Copy what is still in the pipes, but wait for nobody who holds them open."""
        until = time.monotonic() + seconds
        while self.open and time.monotonic() < until:
            ready, _, _ = select.select(self.open, [], [], 0)
            if not ready:
                break
            self.pump(ready)
        if self._capture:
            self._save_end()

    def _remember(self, piece: bytes) -> None:
        self._end += piece
        if len(self._end) > 4 * KEPT_BYTES:
            del self._end[:-KEPT_BYTES]

    def _keep(self, piece: bytes) -> None:
        if self._left <= 0 or self.fault:
            return
        text = piece[: self._left]
        self._left -= len(piece)
        if self._left <= 0:
            text += b"\n[the log ends here: it reached its limit of %d bytes]\n" % self._limit
        try:
            while text:
                text = text[os.write(self._log, text) :]
        except OSError as error:
            self.fault = f"cannot write the log: {error.strerror}"

    def _save_end(self) -> None:
        try:
            with open(f"{self._folder}/stdout", "wb") as file:
                file.write(self._end[-KEPT_BYTES:])
        except OSError as error:
            self.fault = self.fault or f"cannot write the result: {error.strerror}"
