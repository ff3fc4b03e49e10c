"""A log read while it is being written."""

import asyncio
import codecs
from collections.abc import AsyncIterator, Callable
from pathlib import Path

PAUSE_SECONDS = 0.1
CHUNK = 1 << 16


async def lines(log: Path, growing: Callable[[], bool]) -> AsyncIterator[str]:
    """The lines of a log, without their newlines, until nothing writes to it any more.

    A line longer than 64 KiB comes in pieces. What is not UTF-8 is replaced.
    """
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    offset, rest = 0, ""
    while True:
        last = not growing()
        piece = _piece(log, offset)
        offset += len(piece)
        *whole, rest = (rest + decoder.decode(piece)).split("\n")
        if len(rest) >= CHUNK:
            whole, rest = [*whole, rest], ""
        for line in whole:
            yield line
        if not piece and last:
            break
        # Whoever reads fast must not keep the server from its other work.
        await asyncio.sleep(0 if piece else PAUSE_SECONDS)
    if rest := rest + decoder.decode(b"", final=True):
        yield rest


def _piece(log: Path, offset: int) -> bytes:
    try:
        with log.open("rb") as file:
            file.seek(offset)
            return file.read(CHUNK)
    except FileNotFoundError:
        return b""
