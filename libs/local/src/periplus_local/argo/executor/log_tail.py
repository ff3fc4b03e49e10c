"""Reading a log while it is being written."""

import asyncio
import codecs
from collections.abc import AsyncIterator, Callable
from pathlib import Path

POLL_SECONDS = 0.1
READ_BYTES = 1 << 16


async def follow_lines(log: Path, is_growing: Callable[[], bool]) -> AsyncIterator[str]:
    """The lines of a log without their newlines, until `is_growing` is false and all is read.

    A line longer than 64 KiB is split. Bytes that are not UTF-8 are replaced.
    """
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    offset, partial = 0, ""
    while True:
        last = not is_growing()
        chunk = _read(log, offset)
        offset += len(chunk)
        *lines, partial = (partial + decoder.decode(chunk)).split("\n")
        if len(partial) >= READ_BYTES:
            lines, partial = [*lines, partial], ""
        for line in lines:
            yield line
        if not chunk and last:
            break
        # Yield to the event loop after each chunk, so that a fast reader does not block the server.
        await asyncio.sleep(0 if chunk else POLL_SECONDS)
    if partial := partial + decoder.decode(b"", final=True):
        yield partial


def _read(log: Path, offset: int) -> bytes:
    try:
        with log.open("rb") as file:
            file.seek(offset)
            return file.read(READ_BYTES)
    except FileNotFoundError:
        return b""
