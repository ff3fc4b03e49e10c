"""The last part of the start of a step: a forked process becomes the step's program, or says why it can not."""

# Paths are strings here: they go to system calls in a process that must start quickly.
# ruff: noqa: PTH113, PTH116, PTH118

import errno
import json
import os
import signal
import stat
from typing import Any, NoReturn

MAX_ERROR_BYTES = 4000
NOT_STARTED, NOT_FOUND = 125, 64


def execute(spec: dict[str, Any], outputs: tuple[int, int], errors: int) -> NoReturn:
    """Turn this process into the step's program; why that failed goes to the pipe `errors`."""
    code, message = NOT_STARTED, ""
    try:
        os.setsid()
        os.dup2(outputs[0], 1)
        os.dup2(outputs[1], 2)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGCHLD, signal.SIGPIPE, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.umask(0o022)
        os.chdir(spec["cwd"])
        os.execvpe(spec["argv"][0], spec["argv"], spec["env"])  # noqa: S606 - this is what a step is
    except (OSError, ValueError) as error:
        code, message = _explain(spec, error)
    finally:
        end(errors, code, message)


def end(errors: int, code: int, message: str) -> NoReturn:
    """End this process after its message was written to the pipe `errors`."""
    os.write(errors, message.encode(errors="replace")[:MAX_ERROR_BYTES])
    os._exit(code)


def not_started(error: OSError | ValueError) -> str:
    """Argo's message for a step whose program was not even looked for."""
    return f"cannot start the step: {error}"


def _explain(spec: dict[str, Any], error: OSError | ValueError) -> tuple[int, str]:
    """The exit code and Argo's message for a program that could not be started."""
    path = os.fsdecode(getattr(error, "filename", None) or spec["cwd"])
    if not isinstance(error, OSError) or path == spec["cwd"] or error.errno == errno.E2BIG:
        return NOT_STARTED, not_started(error)
    program = spec["argv"][0]
    reason = _why_not_found(program, spec["env"].get("PATH", ""))
    if reason:
        text = json.dumps(program, ensure_ascii=False)
        return NOT_FOUND, f"failed to find name in PATH: exec: {text}: {reason}"
    return NOT_FOUND, f"failed to start command: fork/exec {path}: {(error.strerror or '').lower()}"


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
