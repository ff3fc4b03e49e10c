"""The first process of a confined step's PID namespace: makes its file system, starts its program, and waits for it.

The program is not the first process itself: the kernel keeps from that one every signal that it has no handler for. In
Argo a process of Argo's has this part. When it ends, the kernel ends every process of the namespace.
"""

import contextlib
import os
import signal
from typing import Any, NoReturn

from periplus_local.argo.executor import mount_namespace, process_tree, step_program

SIGNALS = (signal.SIGTERM, signal.SIGCHLD)
"""Blocked when this process is forked, so that none is lost before it waits for them."""


def run(
    spec: dict[str, Any],
    isolation: mount_namespace.Isolation,
    outputs: tuple[int, int],
    errors: int,
    status: int,
    supervisor: int,
) -> NoReturn:
    """Run the step's program to its end and write its wait status, as digits, to the pipe `status`.

    Why it could not be started goes to the pipe `errors`; `supervisor` is the process id of the parent.
    """
    try:
        signal.set_wakeup_fd(-1)
        process_tree.die_with_supervisor(supervisor)
        mount_namespace.enter(spec["mounts"], confined=True)
        mount_namespace.confine(isolation)
        program = os.fork()
    except (OSError, ValueError) as error:
        step_program.end(errors, step_program.NOT_STARTED, step_program.not_started(error))
    if program == 0:
        step_program.execute(spec, outputs, errors)
    code = 1
    try:
        _close_all_but(status)
        os.write(status, str(_wait_for(program)).encode())
        code = 0
    finally:
        os._exit(code)


def _close_all_but(kept: int) -> None:
    """Close every descriptor above 2 but one: whoever reads the other ends must see when the program has closed its own."""
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208
        if int(name) > 2 and int(name) != kept:
            with contextlib.suppress(OSError):  # that of the listing
                os.close(int(name))


def _wait_for(program: int) -> int:
    """The wait status of the program; passes SIGTERM on to its group, and reaps the orphans of the namespace."""
    while True:
        if signal.sigwait(SIGNALS) == signal.SIGTERM:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(program, signal.SIGTERM)
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == program:
                return status
            if pid == 0:
                break
