"""The parent process of one step: starts its program, captures its output, ends it, records how it ended.

One process per step, forked by the fork server; it outlives the local Argo. The step's folder holds `spec` (what
to run), `lock` (held while this process lives; its process id), `stop` (how to end the step), `log`, `stdout`
(the end of it) and `exit` (how the step ended).
"""

# Paths are strings here: they go to system calls in a process that must start quickly.
# ruff: noqa: PTH113, PTH116, PTH118, PTH123

import errno
import json
import os
import select
import signal
import stat
import time
from typing import Any

from periplus_local.argo.executor import mount_namespace, process_tree
from periplus_local.argo.executor.log_capture import LogCapture

# Written full of zeros at the start, so that a full disk cannot keep the record from being written.
RECORD_BYTES = 4096
DRAIN_SECONDS = 2.0
MAX_ERROR_BYTES = 4000


def run(folder: str, isolation: mount_namespace.Isolation) -> None:
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
    supervisor = StepSupervisor(folder, spec, isolation, wakeup_reader)
    ending = supervisor.wait()
    if ending.get("signal") == signal.SIGKILL and not supervisor.killed:
        ending["oom"] = process_tree.oom_kills() > oom_kills_before
    text = json.dumps(ending).encode()[: RECORD_BYTES - 1]
    os.pwrite(record, text.ljust(RECORD_BYTES), 0)


class StepSupervisor:
    """Starts the process of a step and waits until it and all its descendants have ended."""

    def __init__(
        self, folder: str, spec: dict[str, Any], isolation: mount_namespace.Isolation, wakeup: int
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
        self._pid = os.fork()
        if self._pid == 0:
            exec_program(spec, isolation, (out_writer, err_writer), error_writer)
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
                self._status = status

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
        process_tree.signal_group(self._pid, signal.SIGTERM)
        kill_at = time.monotonic() + grace_seconds
        self._kill_at = kill_at if self._kill_at is None else min(kill_at, self._kill_at)


def exec_program(
    spec: dict[str, Any], isolation: mount_namespace.Isolation, outputs: tuple[int, int], errors: int
) -> None:
    """Turn this (forked) process into the step's program; why that failed goes to the pipe `errors`."""
    supervisor = os.getppid()
    code, message = 125, ""
    try:
        os.setsid()
        os.dup2(outputs[0], 1)
        os.dup2(outputs[1], 2)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGCHLD, signal.SIGPIPE, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        os.umask(0o022)
        if spec["mounts"] is not None:
            mount_namespace.enter(isolation, spec["mounts"])
        process_tree.die_with_parent(supervisor)
        os.chdir(spec["cwd"])
        os.execvpe(spec["argv"][0], spec["argv"], spec["env"])  # noqa: S606 - this is what a step is
    except (OSError, ValueError) as error:
        code, message = _explain(spec, error)
    finally:
        os.write(errors, message.encode(errors="replace")[:MAX_ERROR_BYTES])
        os._exit(code)


def _explain(spec: dict[str, Any], error: OSError | ValueError) -> tuple[int, str]:
    """The exit code and Argo's message for a program that could not be started."""
    path = os.fsdecode(getattr(error, "filename", None) or spec["cwd"])
    if not isinstance(error, OSError) or path == spec["cwd"] or error.errno == errno.E2BIG:
        return 125, f"cannot start the step: {error}"
    program = spec["argv"][0]
    reason = _why_not_found(program, spec["env"].get("PATH", ""))
    if reason:
        return 64, f"failed to find name in PATH: exec: {json.dumps(program, ensure_ascii=False)}: {reason}"
    return 64, f"failed to start command: fork/exec {path}: {(error.strerror or '').lower()}"


def _why_not_found(program: str, path: str) -> str:
    """Why no executable is found under a name; empty where one is."""
    if "/" not in program:
        candidates = (os.path.join(folder, program) for folder in path.split(":") if folder)
        found = any(os.path.isfile(each) and os.access(each, os.X_OK) for each in candidates)
        return "" if found else "executable file not found in $PATH"
    try:
        mode = os.stat(program).st_mode
    except OSError as error:
        return f"stat {program}: {(error.strerror or '').lower()}"
    if stat.S_ISDIR(mode):
        return "is a directory"
    return "" if os.access(program, os.X_OK) else "permission denied"
