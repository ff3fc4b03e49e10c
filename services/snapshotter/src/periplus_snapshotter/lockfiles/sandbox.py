"""Lockfiles are read in a process of their own that can do nothing else: whatever they do to it, it is that one."""

import asyncio
import json
import logging
import signal
import sys

from periplus_common.errors import Invalid, Unavailable
from periplus_snapshotter.domain import Package

log = logging.getLogger(__name__)

PATIENCE = 20.0  # seconds; above the limit of processor time, for a machine that is busy
_SPENT = (-signal.SIGXCPU, -signal.SIGKILL)


class Sandbox:
    """Starts at most `width` processes at once, one for each lockfile that was not read before."""

    def __init__(self, width: int) -> None:
        self._free = asyncio.Semaphore(width)

    async def packages(self, name: str, content: bytes) -> tuple[Package, ...]:
        """What a lockfile pins, sorted. Raises `Invalid` where it is not what its name says."""
        async with self._free:
            code, told = await _read(name, content)
        if code in _SPENT:
            raise Invalid("takes more than 5 s to read")
        if code != 0:
            # The interpreter may end before it can say why: at its limit of memory, in the C stack.
            log.warning("the reader of a %s of %d bytes ended with %d", name, len(content), code)
            raise Invalid("can not be read within the limits")
        answer = json.loads(told)
        if "invalid" in answer:
            raise Invalid(answer["invalid"], fix=answer["fix"])
        return tuple(Package(name, version, tuple(hashes)) for name, version, hashes in answer["packages"])


async def _read(name: str, content: bytes) -> tuple[int, bytes]:
    """Exit code and standard output of the process. No environment goes with it: it holds our secrets."""
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
        async with asyncio.timeout(PATIENCE):
            told, _ = await process.communicate(content)
    except TimeoutError as error:
        raise Unavailable(f"the lockfile was not read within {PATIENCE:.0f} s") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return process.returncode, told
