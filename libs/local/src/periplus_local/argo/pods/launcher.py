"""The process that forks one attempt per step, so that a step costs a fork and no start of Python.

Started by the server with a socket as its standard input. The server sends the folder of a step,
with the file descriptor of its lock; the answer, when the attempt has ended, names the folder.
When the server goes away this process ends, and the attempts go on by themselves.
"""

import gc
import json
import os
import select
import signal
import socket
import sys
import traceback

from periplus_local.argo.pods import attempt, descendants, namespace


class Launcher:
    """Forks attempts as they are asked for, and tells when each has ended."""

    def __init__(self, channel: socket.socket, isolation: namespace.Isolation) -> None:
        self._channel = channel
        self._isolation = isolation
        self._running: dict[int, str] = {}
        self._unread = b""
        self._locks: list[int] = []
        self._wake, self._alarm = os.pipe()
        for end in (self._wake, self._alarm):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(self._alarm, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def serve(self) -> None:
        """Serve until the server has gone."""
        while True:
            ready, _, _ = select.select([self._channel.fileno(), self._wake], [], [])
            if self._wake in ready:
                os.read(self._wake, 4096)
                self._reap()
            if self._channel.fileno() in ready:
                message, locks, _, _ = socket.recv_fds(self._channel, 65536, 64)
                if not message:
                    return
                self._unread += message
                self._locks += locks
                while b"\n" in self._unread:
                    folder, self._unread = self._unread.split(b"\n", 1)
                    self._start(os.fsdecode(folder), self._locks.pop(0))

    def _start(self, folder: str, lock: int) -> None:
        os.set_inheritable(lock, False)
        try:
            pid = os.fork()
        except OSError as error:
            self._send({"ended": folder, "status": error.errno or 1})
        else:
            if pid == 0:
                self._attempt(folder)
            self._running[pid] = folder
        os.close(lock)

    def _attempt(self, folder: str) -> None:
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            for end in (self._wake, self._alarm, *self._locks):
                os.close(end)
            self._channel.close()
            attempt.run(folder, self._isolation)
            code = 0
        except OSError as error:
            code = error.errno or 1  # a full disk, say: the server puts it into words
        except BaseException:  # noqa: BLE001 - told in the log, and by the status
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(code)

    def _reap(self) -> None:
        ended = []
        orphans = False
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            folder = self._running.pop(pid, None)
            # An attempt was killed, or what it left: the next generation comes to us.
            orphans |= folder is None or status != 0
            if folder is not None:
                ended.append({"ended": folder, "status": os.waitstatus_to_exitcode(status)})
        if orphans:
            self._end_orphans()
        for told in ended:
            self._send(told)

    def _end_orphans(self) -> None:
        """An attempt that was killed leaves its descendants to this process: end them."""
        for child in descendants.children():
            if child not in self._running:
                descendants.end(child)

    def _send(self, message: dict[str, object]) -> None:
        try:
            self._channel.sendall(json.dumps(message).encode() + b"\n")
        except (BrokenPipeError, ConnectionResetError):
            return  # the server has gone; the next read says so, too


def main() -> None:
    """Serve on the standard input.

    Arguments: an empty folder to try mounts in, and the isolation to use if it is not to be tried.
    """
    channel = socket.socket(fileno=os.dup(0))
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    isolation, reason = namespace.probe(sys.argv[1], sys.argv[2:] != ["none"])
    descendants.adopt_orphans()
    channel.sendall(json.dumps({"isolation": isolation, "reason": reason}).encode() + b"\n")
    launcher = Launcher(channel, isolation)
    gc.freeze()
    launcher.serve()


if __name__ == "__main__":
    main()
