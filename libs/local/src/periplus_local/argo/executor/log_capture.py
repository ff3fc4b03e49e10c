"""Capture of a step's output: a log of bounded size on disk, and the end of standard output for its result."""

# Paths are strings here: they go to system calls in a process that must start quickly.
# ruff: noqa: PTH123

import os
import select
import time

READ_BYTES = 1 << 16
# Argo keeps the last 256 kB of standard output; one more byte for the newline that it trims.
RESULT_BYTES = 256 * 1024
TAIL_BYTES = RESULT_BYTES + 1


class LogCapture:
    """Copies a step's two pipes to the file `log`, and the end of its standard output to `stdout`."""

    def __init__(self, folder: str, max_bytes: int, capture_stdout: bool, stdout: int, stderr: int) -> None:
        self._folder = folder
        self._log = os.open(f"{folder}/log", os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
        self._max_bytes = max_bytes
        self._bytes_left = max_bytes
        self._capture_stdout = capture_stdout
        self._stdout = stdout
        self._stdout_tail = bytearray()
        self.open_pipes = [stdout, stderr]
        self.error = ""
        for pipe in self.open_pipes:
            os.set_blocking(pipe, False)

    def pump(self, ready: list[int]) -> None:
        """Copy one chunk of each pipe in `ready`."""
        for pipe in [p for p in self.open_pipes if p in ready]:
            try:
                chunk = os.read(pipe, READ_BYTES)
            except BlockingIOError:
                continue
            if not chunk:
                self.open_pipes.remove(pipe)
                os.close(pipe)
                continue
            if pipe == self._stdout and self._capture_stdout:
                self._append_to_tail(chunk)
            self._append_to_log(chunk)

    def drain(self, seconds: float) -> None:
        """Copy what is left in the pipes, without waiting for a process that still holds them open."""
        until = time.monotonic() + seconds
        while self.open_pipes and time.monotonic() < until:
            ready, _, _ = select.select(self.open_pipes, [], [], 0)
            if not ready:
                break
            self.pump(ready)
        if self._capture_stdout:
            self._save_tail()

    def _append_to_tail(self, chunk: bytes) -> None:
        self._stdout_tail += chunk
        if len(self._stdout_tail) > 4 * TAIL_BYTES:
            del self._stdout_tail[:-TAIL_BYTES]

    def _append_to_log(self, chunk: bytes) -> None:
        if self._bytes_left <= 0 or self.error:
            return
        text = chunk[: self._bytes_left]
        self._bytes_left -= len(chunk)
        if self._bytes_left <= 0:
            text += b"\n[the log ends here: it reached its limit of %d bytes]\n" % self._max_bytes
        try:
            while text:
                text = text[os.write(self._log, text) :]
        except OSError as error:
            self.error = f"cannot write the log: {error.strerror}"

    def _save_tail(self) -> None:
        try:
            with open(f"{self._folder}/stdout", "wb") as file:
                file.write(self._stdout_tail[-TAIL_BYTES:])
        except OSError as error:
            self.error = self.error or f"cannot write the result: {error.strerror}"
