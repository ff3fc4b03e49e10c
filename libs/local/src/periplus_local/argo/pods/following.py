"""A log read while it is being written."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

PAUSE_SECONDS = 0.1
CHUNK = 1 << 16


async def lines(log: Path, growing: Callable[[], bool]) -> AsyncIterator[str]:
    """The lines of a log, without their newlines, until nothing writes to it any more.

    A line longer than 64 KiB comes in pieces. What is not UTF-8 is replaced.
    """
    offset, rest = 0, b""
    while True:
        last = not growing()
        piece = _piece(log, offset)
        offset += len(piece)
        *whole, rest = (rest + piece).split(b"\n")
        if len(rest) >= CHUNK:
            whole, rest = [*whole, rest], b""
        for line in whole:
            yield line.decode(errors="replace")
        if not piece and last:
            break
        if not piece:
            await asyncio.sleep(PAUSE_SECONDS)
    if rest:
        yield rest.decode(errors="replace")


def _piece(log: Path, offset: int) -> bytes:
    try:
        with log.open("rb") as file:
            file.seek(offset)
            return file.read(CHUNK)
    except FileNotFoundError:
        return b""
