"""A background task: it ends with the block, and its failure ends the block."""

import asyncio
from datetime import timedelta

import pytest

from periplus_common.runtime import background_task


async def test_work_ends_with_the_block():
    ended = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with background_task(work()):
        await asyncio.sleep(0)
    assert ended.is_set()


async def test_work_that_swallows_a_cancellation_is_cancelled_again():
    swallowed = 0

    async def work() -> None:
        nonlocal swallowed
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                swallowed += 1
                if swallowed == 2:
                    raise

    async with asyncio.timeout(60), background_task(work()):
        await asyncio.sleep(0)
    assert swallowed == 2


async def test_work_may_end_by_itself_within_its_grace():
    stop, ended = asyncio.Event(), False

    async def work() -> None:
        nonlocal ended
        await stop.wait()
        await asyncio.sleep(0.05)
        ended = True

    async with background_task(work(), grace=timedelta(seconds=5)):
        stop.set()
    assert ended


async def test_work_that_fails_ends_the_block_with_its_error():
    async def work() -> None:
        raise ValueError("broken")

    with pytest.RaisesGroup(ValueError):
        async with background_task(work()):
            await asyncio.Event().wait()


async def test_a_block_that_fails_ends_the_work_and_keeps_its_error():
    with pytest.RaisesGroup(KeyError):
        async with background_task(asyncio.Event().wait()):
            raise KeyError("block")
