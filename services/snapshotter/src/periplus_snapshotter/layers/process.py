"""Reads layers in restricted processes, while they are downloaded."""

import asyncio
import hashlib
import json
import logging
import sys
from collections.abc import AsyncIterator
from contextlib import suppress

from periplus_common.errors import Invalid, Unavailable
from periplus_snapshotter.layers.layer import Layer

log = logging.getLogger(__name__)


class LayerProcesses:
    """Implements `LayerReader`. At most `at_once` layers are read at a time."""

    def __init__(self, at_once: int = 2) -> None:
        self._slots = asyncio.Semaphore(at_once)

    async def read(self, digest: str, size_bytes: int, content: AsyncIterator[bytes]) -> Layer:
        """What a layer has, whose bytes must be as many as said and have the digest. Raises `Invalid`, `Unavailable`."""
        async with self._slots:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-I", "-m", "periplus_snapshotter.layers",
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
                env={}, cwd="/",
            )  # fmt: skip
            assert process.stdin is not None
            assert process.stdout is not None
            output = asyncio.create_task(process.stdout.read())
            try:
                found, read = hashlib.sha256(), 0
                async for chunk in content:
                    read += len(chunk)
                    if read > size_bytes:
                        raise Invalid(
                            f"the layer {digest} has more than the {size_bytes} bytes that are said"
                        )
                    found.update(chunk)
                    with suppress(ConnectionError):  # it ended early: its output says why
                        process.stdin.write(chunk)
                        await process.stdin.drain()
                process.stdin.close()
                result = await output
                await process.wait()
            finally:
                output.cancel()
                if process.returncode is None:
                    process.kill()
                    await process.wait()
        if f"sha256:{found.hexdigest()}" != digest:
            raise Invalid(f"the registry gave other bytes for the layer {digest}")
        if process.returncode != 0:
            log.warning("the reader of the layer %s exited with %s", digest, process.returncode)
            raise Unavailable(f"the layer {digest} can not be read within the limits of memory and time")
        document = json.loads(result)
        if "invalid" in document:
            raise Invalid(f"the layer {digest} can not be read: {document['invalid']}")
        return decode(document)


def decode(document: dict[str, object]) -> Layer:
    """A layer from its JSON."""
    records, removed, replaced = (document[name] for name in ("records", "removed", "replaced"))
    assert isinstance(records, dict)
    assert isinstance(removed, list)
    assert isinstance(replaced, list)
    return Layer(
        {path: [(name, version) for name, version in found] for path, found in records.items()},
        removed,
        replaced,
    )
