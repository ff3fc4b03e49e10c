"""One attempt of one step: starts its process, keeps its output, ends it, writes how it ended.

Runs in a process of its own, one per step, which outlives the server. Its folder holds `spec`
(what to run), `lock` (held while it lives; its process id), `stop` (how to end it), `log`, `stdout` (the
end of it) and `exit` (how it ended).
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

from periplus_local.argo.pods import descendants, namespace
from periplus_local.argo.pods.output import Output

# Written full of zeros at the start, so that a full disk cannot keep the record from being written.
RECORD_BYTES = 4096
DRAIN_SECONDS = 2.0


def run(folder: str, isolation: namespace.Isolation) -> None:
    """Run the step of `folder` to its end; the record `exit` says how it went."""
    os.setsid()
    record = os.open(f"{folder}/exit", os.O_CREAT | os.O_RDWR | os.O_TRUNC, 0o600)
    os.write(record, bytes(RECORD_BYTES))
    with open(f"{folder}/spec") as file:
        spec = json.load(file)
    descendants.adopt_orphans()
    wake, alarm = os.pipe()
    os.set_blocking(alarm, False)
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(alarm, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    with open(f"{folder}/lock", "w") as file:
        file.write(str(os.getpid()))
    kills = descendants.oom_kills()
    step = Step(folder, spec, isolation, wake)
    ending = step.watch()
    if ending.get("signal") == signal.SIGKILL and not step.killed:
        ending["oom"] = descendants.oom_kills() > kills
    text = json.dumps(ending).encode()[: RECORD_BYTES - 1]
    os.pwrite(record, text.ljust(RECORD_BYTES), 0)


class Step:
    """The process of a step, from its start to the last of its descendants."""

    def __init__(self, folder: str, spec: dict[str, Any], isolation: namespace.Isolation, wake: int) -> None:
        self._folder = folder
        self._wake = wake
        self._grace: float = spec["grace"]
        self._kill_at: float | None = None
        self.killed = False
        self._late = False
        self._status: int | None = None
        self._started = time.time()
        self._until = None if spec["deadline"] is None else time.monotonic() + spec["deadline"]
        self._stopped = False
        out_reader, out_writer = os.pipe()
        err_reader, err_writer = os.pipe()
        fault_reader, fault_writer = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            become(spec, isolation, (out_writer, err_writer), fault_writer)
        for end in (out_writer, err_writer, fault_writer):
            os.close(end)
        self._output = Output(folder, spec["log_limit"], spec["capture"], out_reader, err_reader)
        with open(fault_reader, "rb") as faults:
            # Ends when the step's program has taken over, or could not.
            self._fault = faults.read().decode(errors="replace")

    def watch(self) -> dict[str, Any]:
        """Wait for the end, and tell of it as the record does."""
        while self._status is None:
            readers = [self._wake, *self._output.open]
            ready, _, _ = select.select(readers, [], [], self._patience())
            self._output.pump(ready)
            if self._wake in ready:
                self._woken()
            self._enforce()
        finished = time.time()
        descendants.end_all(self._pid)
        self._output.drain(DRAIN_SECONDS)
        code = os.waitstatus_to_exitcode(self._status)
        return {
            "code": code if code >= 0 else 128 - code,
            "signal": -code if code < 0 else 0,
            "late": self._late,
            "stopped": self._stopped,
            "fault": self._fault[:500],
            "log_fault": self._output.fault,
            "started": self._started,
            "finished": finished,
        }

    def _patience(self) -> float | None:
        moments = [m for m in (self._until, self._kill_at) if m is not None]
        return max(0.0, min(moments) - time.monotonic()) if moments else None

    def _woken(self) -> None:
        numbers = os.read(self._wake, 512)
        if signal.SIGTERM in numbers:
            self._stopped = True
            self._end(self._stop_grace())
        while self._status is None:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self._pid:
                self._status = status

    def _stop_grace(self) -> float:
        try:
            with open(f"{self._folder}/stop") as file:
                return float(json.load(file)["grace"])
        except (OSError, ValueError, KeyError):
            return self._grace  # a signal from elsewhere, with no word of how long to wait

    def _enforce(self) -> None:
        now = time.monotonic()
        if self._until is not None and now >= self._until:
            self._until, self._late = None, self._status is None
            self._end(self._grace)
        if self._kill_at is not None and now >= self._kill_at:
            self.killed, self._kill_at = True, None
            descendants.signal_group(self._pid, signal.SIGKILL)
            descendants.kill(self._pid)  # should it have left its own group

    def _end(self, grace: float) -> None:
        descendants.signal_group(self._pid, signal.SIGTERM)
        at = time.monotonic() + grace
        self._kill_at = at if self._kill_at is None else min(at, self._kill_at)


def become(
    spec: dict[str, Any], isolation: namespace.Isolation, outputs: tuple[int, int], faults: int
) -> None:
    """Turn this (new) process into the step's program; a fault goes to the pipe `faults`."""
    launcher = os.getppid()
    code, fault = 125, ""
    try:
        os.setsid()
        os.dup2(outputs[0], 1)
        os.dup2(outputs[1], 2)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGCHLD, signal.SIGPIPE, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        os.umask(0o022)
        if spec["view"] is not None:
            namespace.enter(isolation, spec["view"])
        descendants.die_with_parent(launcher)
        os.chdir(spec["cwd"])
        os.execvpe(spec["argv"][0], spec["argv"], spec["env"])  # noqa: S606 - this is what a step is
    except (OSError, ValueError) as error:
        code, fault = _explain(spec, error)
    finally:
        os.write(faults, fault.encode(errors="replace")[:4000])
        os._exit(code)


def _explain(spec: dict[str, Any], error: OSError | ValueError) -> tuple[int, str]:
    """The exit code and the words, which are Argo's, for a program that could not be started."""
    told = os.fsdecode(getattr(error, "filename", None) or spec["cwd"])
    if not isinstance(error, OSError) or told == spec["cwd"] or error.errno == errno.E2BIG:
        return 125, f"cannot start the step: {error}"
    program = spec["argv"][0]
    lacks = _unfound(program, spec["env"].get("PATH", ""))
    if lacks:
        return 64, f"failed to find name in PATH: exec: {json.dumps(program, ensure_ascii=False)}: {lacks}"
    return 64, f"failed to start command: fork/exec {told}: {(error.strerror or '').lower()}"


def _unfound(program: str, path: str) -> str:
    """Why nothing is found to be run under a name; empty where something is."""
    if "/" not in program:
        found = (os.path.join(folder, program) for folder in path.split(":") if folder)
        there = any(os.path.isfile(each) and os.access(each, os.X_OK) for each in found)
        return "" if there else "executable file not found in $PATH"
    try:
        mode = os.stat(program).st_mode
    except OSError as error:
        return f"stat {program}: {(error.strerror or '').lower()}"
    if stat.S_ISDIR(mode):
        return "is a directory"
    return "" if os.access(program, os.X_OK) else "permission denied"
