"""The parent process of one step: starts its program, captures its output, ends it, records how it ended.

One process per step, forked by the fork server; it outlives the local Argo. The step's folder holds `spec` (what
to run), `lock` (held while this process lives; its process id), `stop` (how to end the step), `log`, `stdout`
(the end of it) and `exit` (how the step ended).
"""

# Paths are strings here: they go to system calls in a process that must start quickly.
# ruff: noqa: PTH123

import json
import os
import select
import signal
import time
from typing import Any, NoReturn

from periplus_local.argo.executor import mount_namespace, process_tree, step_init, step_program
from periplus_local.argo.executor.log_capture import LogCapture

# Written full of zeros at the start, so that a full disk cannot keep the record from being written.
RECORD_BYTES = 4096
DRAIN_SECONDS = 2.0


def run(folder: str, support: mount_namespace.Support) -> None:
    """Run the step of `folder` to its end and write its record `exit`."""
    os.setsid()
    record = os.open(f"{folder}/exit", os.O_CREAT | os.O_RDWR | os.O_TRUNC, 0o600)
    os.write(record, bytes(RECORD_BYTES))
    with open(f"{folder}/spec") as file:
        spec = json.load(file)
    process_tree.adopt_orphans()
    wakeup_reader, wakeup_writer = os.pipe()
    os.set_blocking(wakeup_writer, False)
    os.set_blocking(wakeup_reader, False)
    signal.set_wakeup_fd(wakeup_writer, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    with open(f"{folder}/lock", "w") as file:
        file.write(str(os.getpid()))
    oom_kills_before = process_tree.oom_kills()
    supervisor = StepSupervisor(folder, spec, support, wakeup_reader)
    ending = supervisor.wait()
    if ending.get("signal") == signal.SIGKILL and not supervisor.killed:
        ending["oom"] = process_tree.oom_kills() > oom_kills_before
    text = json.dumps(ending).encode()[: RECORD_BYTES - 1]
    os.pwrite(record, text.ljust(RECORD_BYTES), 0)


class StepSupervisor:
    """Starts the process of a step and waits until it and all its descendants have ended."""

    def __init__(
        self, folder: str, spec: dict[str, Any], support: mount_namespace.Support, wakeup: int
    ) -> None:
        self._folder = folder
        self._wakeup = wakeup
        self._grace_seconds: float = spec["grace_seconds"]
        self._kill_at: float | None = None
        self.killed = False
        self._deadline_passed = False
        self._status: int | None = None
        self._started = time.time()
        deadline = spec["deadline_seconds"]
        self._deadline = None if deadline is None else time.monotonic() + deadline
        self._stopped = False
        out_reader, out_writer = os.pipe()
        err_reader, err_writer = os.pipe()
        error_reader, error_writer = os.pipe()
        self._confined = spec["mounts"] is not None and not support.exposure
        status_reader, status_writer = os.pipe() if self._confined else (-1, -1)
        self._status_reader = status_reader
        supervisor = os.getpid()
        if self._confined:
            mount_namespace.unshare_processes()
            signal.pthread_sigmask(signal.SIG_BLOCK, step_init.SIGNALS)
        self._pid = os.fork()
        if self._pid == 0:
            outputs = (out_writer, err_writer)
            if self._confined:
                step_init.run(spec, support.isolation, outputs, error_writer, status_writer, supervisor)
            _execute(spec, outputs, error_writer, supervisor)
        if self._confined:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, step_init.SIGNALS)
            os.close(status_writer)
        for end in (out_writer, err_writer, error_writer):
            os.close(end)
        capture_stdout = spec["capture_stdout"]
        self._logs = LogCapture(folder, spec["max_log_bytes"], capture_stdout, out_reader, err_reader)
        with open(error_reader, "rb") as errors:
            # End of file when exec succeeded, or after the reason why it did not.
            self._start_error = errors.read().decode(errors="replace")

    def wait(self) -> dict[str, Any]:
        """Wait for the end of the step; the content of its record `exit`."""
        while self._status is None:
            readers = [self._wakeup, *self._logs.open_pipes]
            ready, _, _ = select.select(readers, [], [], self._next_timeout())
            self._logs.pump(ready)
            if self._wakeup in ready:
                self._handle_signals()
            self._enforce_deadline()
        finished = time.time()
        if not self._confined:  # else the kernel has ended them with the first process of their namespace
            process_tree.kill_all(self._pid)
        self._logs.drain(DRAIN_SECONDS)
        code = os.waitstatus_to_exitcode(self._status)
        return {
            "code": code if code >= 0 else 128 - code,
            "signal": -code if code < 0 else 0,
            "deadline_passed": self._deadline_passed,
            "stopped": self._stopped,
            "start_error": self._start_error[:500],
            "log_error": self._logs.error,
            "started": self._started,
            "finished": finished,
        }

    def _next_timeout(self) -> float | None:
        moments = [moment for moment in (self._deadline, self._kill_at) if moment is not None]
        return max(0.0, min(moments) - time.monotonic()) if moments else None

    def _handle_signals(self) -> None:
        numbers = os.read(self._wakeup, 512)
        if signal.SIGTERM in numbers:
            self._stopped = True
            self._terminate(self._stop_grace_seconds())
        while self._status is None:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self._pid:
                self._status = self._status_of_program(status)

    def _status_of_program(self, status: int) -> int:
        """The wait status of the program, where the process that ended was its parent."""
        written = os.read(self._status_reader, 16) if self._confined else b""
        return int(written) if written else status

    def _stop_grace_seconds(self) -> float:
        try:
            with open(f"{self._folder}/stop") as file:
                return float(json.load(file)["grace_seconds"])
        except (OSError, ValueError, KeyError):
            return self._grace_seconds  # the signal was not sent by the executor

    def _enforce_deadline(self) -> None:
        now = time.monotonic()
        if self._deadline is not None and now >= self._deadline:
            self._deadline, self._deadline_passed = None, self._status is None
            self._terminate(self._grace_seconds)
        if self._kill_at is not None and now >= self._kill_at:
            self.killed, self._kill_at = True, None
            process_tree.signal_group(self._pid, signal.SIGKILL)
            process_tree.kill(self._pid)  # it may have left its own group

    def _terminate(self, grace_seconds: float) -> None:
        if self._confined:
            process_tree.send(self._pid, signal.SIGTERM)
        else:
            process_tree.signal_group(self._pid, signal.SIGTERM)
        kill_at = time.monotonic() + grace_seconds
        self._kill_at = kill_at if self._kill_at is None else min(kill_at, self._kill_at)


def _execute(spec: dict[str, Any], outputs: tuple[int, int], errors: int, supervisor: int) -> NoReturn:
    """Turn this (forked) process into the program of a step that is not confined."""
    try:
        signal.set_wakeup_fd(-1)
        if spec["mounts"] is not None:
            mount_namespace.enter(spec["mounts"])
        process_tree.die_with_parent(supervisor)
    except (OSError, ValueError) as error:
        step_program.end(errors, step_program.NOT_STARTED, step_program.not_started(error))
    step_program.execute(spec, outputs, errors)
