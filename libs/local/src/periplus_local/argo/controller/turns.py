"""Turns: a workflow with many steps does not keep the server from everything else while it is expanded."""

import asyncio
from collections import deque

# How many steps of one workflow are filled in or started in one iteration of the event loop: about 10 ms.
STEPS_PER_TURN = 50


class Turns:
    """Lets so many steps of one workflow go on in each iteration of the event loop, first come first served."""

    def __init__(self) -> None:
        self._left = STEPS_PER_TURN
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._is_scheduled = False

    async def take(self) -> None:
        """Wait until one more step may go on; the first ones of an iteration need not wait."""
        loop = asyncio.get_running_loop()
        if not self._is_scheduled:
            self._is_scheduled = True
            loop.call_soon(self._next)
        if self._left and not self._waiting:
            self._left -= 1
            return
        turn = loop.create_future()
        self._waiting.append(turn)
        await turn

    def _next(self) -> None:
        self._left = STEPS_PER_TURN
        while self._waiting and self._left:
            turn = self._waiting.popleft()
            if not turn.done():  # else its step was cancelled
                turn.set_result(None)
                self._left -= 1
        self._is_scheduled = self._left < STEPS_PER_TURN
        if self._is_scheduled:
            asyncio.get_running_loop().call_soon(self._next)
