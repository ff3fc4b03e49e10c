"""The process that forks one supervisor per step, so that starting a step costs a fork and no start of Python.

Started by the executor with a socket as its standard input. The executor sends the folder of a step with the
file descriptor of its lock; the answer, when the supervisor has ended, names the folder. When the executor closes
the socket this process ends, and the supervisors go on by themselves.
"""

import gc
import json
import os
import select
import signal
import socket
import sys
import traceback

from periplus_common import private_process
from periplus_local.argo.executor import mount_namespace, process_tree, step_supervisor


class ForkServer:
    """Forks a supervisor for each request, and reports when each has ended."""

    def __init__(self, channel: socket.socket, support: mount_namespace.Support) -> None:
        self._channel = channel
        self._support = support
        self._running: dict[int, str] = {}
        self._unread = b""
        self._locks: list[int] = []
        self._wakeup_reader, self._wakeup_writer = os.pipe()
        for end in (self._wakeup_reader, self._wakeup_writer):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(self._wakeup_writer, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def serve(self) -> None:
        """Serve until the executor closes the channel."""
        while True:
            ready, _, _ = select.select([self._channel.fileno(), self._wakeup_reader], [], [])
            if self._wakeup_reader in ready:
                os.read(self._wakeup_reader, 4096)
                self._reap()
            if self._channel.fileno() in ready:
                message, locks, _, _ = socket.recv_fds(self._channel, 65536, 64)
                if not message:
                    return
                self._unread += message
                self._locks += locks
                while b"\n" in self._unread:
                    folder, self._unread = self._unread.split(b"\n", 1)
                    self._fork(os.fsdecode(folder), self._locks.pop(0))

    def _fork(self, folder: str, lock: int) -> None:
        os.set_inheritable(lock, False)
        try:
            pid = os.fork()
        except OSError as error:
            self._send({"ended": folder, "status": error.errno or 1})
        else:
            if pid == 0:
                self._supervise(folder)
            self._running[pid] = folder
        os.close(lock)

    def _supervise(self, folder: str) -> None:
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            for end in (self._wakeup_reader, self._wakeup_writer, *self._locks):
                os.close(end)
            self._channel.close()
            step_supervisor.run(folder, self._support)
            code = 0
        except OSError as error:
            code = error.errno or 1  # a full disk, for example: the executor turns the number into a message
        except BaseException:  # noqa: BLE001 - logged, and visible in the exit status
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(code)

    def _reap(self) -> None:
        ended = []
        has_orphans = False
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            folder = self._running.pop(pid, None)
            # A supervisor that was killed leaves its children to this process, and they leave theirs.
            has_orphans |= folder is None or status != 0
            if folder is not None:
                ended.append({"ended": folder, "status": os.waitstatus_to_exitcode(status)})
        if has_orphans:
            self._kill_orphans()
        for message in ended:
            self._send(message)

    def _kill_orphans(self) -> None:
        for child in process_tree.children():
            if child not in self._running:
                process_tree.kill_with_group(child)

    def _send(self, message: dict[str, object]) -> None:
        try:
            self._channel.sendall(json.dumps(message).encode() + b"\n")
        except (BrokenPipeError, ConnectionResetError):
            return  # the executor has ended; the next read of the channel gives end of file


def main() -> None:
    """Serve on the standard input.

    Arguments: an empty folder to try mounts in, `yes` or `no` for whether namespaces are to be used, and the folders that no
    step may change.
    """
    channel = socket.socket(fileno=os.dup(0))
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    folder, wanted, *read_only = sys.argv[1:]
    support = mount_namespace.probe(folder, wanted == "yes")
    if support.isolation == "user+mount":
        mount_namespace.enter_user_namespace()
    if not support.exposure:
        staging = f"{folder}/staging"
        os.mkdir(staging)  # noqa: PTH102
        mount_namespace.prepare_host(support.isolation, read_only, staging)
    private_process.forbid_inspection()
    process_tree.adopt_orphans()
    channel.sendall(json.dumps(support._asdict()).encode() + b"\n")
    server = ForkServer(channel, support)
    gc.freeze()
    server.serve()


if __name__ == "__main__":
    main()
