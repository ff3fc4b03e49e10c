"""Parses lockfiles in restricted processes, so that a malicious one harms only its own process."""

import asyncio
import json
import logging
import signal
import sys
from datetime import timedelta

from periplus_common.errors import Invalid, Unavailable
from periplus_snapshotter.snapshots.claim import Package

log = logging.getLogger(__name__)

DEFAULT_TIMEOUT = timedelta(seconds=20)
"""More than the limit of processor time, as a busy machine gives a process little of it."""

_CPU_LIMIT_EXIT_CODES = (-signal.SIGXCPU, -signal.SIGKILL)


class Sandbox:
    """Implements `LockfileParser`. Runs at most `max_processes` at the same time."""

    def __init__(self, max_processes: int, timeout: timedelta = DEFAULT_TIMEOUT) -> None:
        self._slots = asyncio.Semaphore(max_processes)
        self._timeout = timeout

    async def parse(self, name: str, content: bytes) -> tuple[Package, ...]:
        """The packages that a lockfile pins, sorted.

        Raises `Invalid` if it is not in the format of its name, and `Unavailable` after the timeout.
        """
        async with self._slots:
            code, output = await _run(name, content, self._timeout)
        if code in _CPU_LIMIT_EXIT_CODES:
            raise Invalid("takes more than 5 s to parse")
        if code != 0:
            # The interpreter may crash without a message: out of memory, or at the end of the C stack.
            log.warning("the parser of a %s of %d bytes exited with %d", name, len(content), code)
            raise Invalid("can not be parsed within the limits of memory and stack")
        result = json.loads(output)
        if "invalid" in result:
            raise Invalid(result["invalid"], fix=result["fix"])
        return tuple(Package(name, version, tuple(hashes)) for name, version, hashes in result["packages"])


async def _run(name: str, content: bytes, limit: timedelta) -> tuple[int, bytes]:
    """Exit code and standard output of the process. It gets no environment, as ours contains secrets."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-I",
        "-m",
        "periplus_snapshotter.lockfiles",
        name,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={},
        cwd="/",
    )
    try:
        async with asyncio.timeout(limit.total_seconds()):
            output, _ = await process.communicate(content)
    except TimeoutError as error:
        raise Unavailable(f"the lockfile was not parsed within {limit.total_seconds():.0f} s") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return process.returncode, output
