"""Which functions were executed, at no cost while they run.

Python 3.12 and later: `sys.monitoring` reports the first start of a function and is then switched off for it. Python 3.11 has a
counter in each code object that the first executions raise, until it is full; it is read from memory at the place at which
a function that is executed here has it. Where neither is to be had, every function counts as executed.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import CodeType

_TOOL = 4
_OFFSET = 52
_FULL = 8


class Executed:
    """Counts the executions of functions up to 8, or only whether there was one."""

    def __init__(self) -> None:
        # By id: equal functions of two files would be one key, and code objects live as long as this.
        self._started: dict[int, int] | None = None
        self._round = 1
        monitoring: Any = getattr(sys, "monitoring", None)
        self._monitoring = monitoring
        if monitoring is None or monitoring.get_tool(_TOOL) is not None:
            return
        monitoring.use_tool_id(_TOOL, "periplus")
        self._started = {}
        monitoring.register_callback(_TOOL, monitoring.events.PY_START, self._on_start)

    def watch(self, functions: Callable[[], Iterable[CodeType]]) -> None:
        """Count these from now on. Without it, some Pythons count nothing, and others need not know them yet."""
        if self._started is not None:
            for code in functions():
                self._monitoring.set_local_events(_TOOL, code, self._monitoring.events.PY_START)

    def begin_again(self) -> None:
        """Count again those that were executed."""
        if self._started is not None:
            self._round += 1
            self._monitoring.restart_events()

    def counts(self, functions: Iterable[CodeType]) -> list[int]:
        """How often each was executed: 0, or a number that is another one when it was executed again."""
        if self._started is not None:
            return [self._started.get(id(code), 0) for code in functions]
        counter = _counter()
        if counter is None:
            return [_FULL for _ in functions]
        return [_FULL + counter(id(code) + _OFFSET).value for code in functions]

    def is_full(self, count: int) -> bool:
        """Whether a count does not rise any more, so that two that are equal say nothing."""
        return self._started is None and count >= _FULL

    def _on_start(self, code: CodeType, _offset: int) -> Any:
        assert self._started is not None
        self._started[id(code)] = self._round
        return self._monitoring.DISABLE


def _counter() -> Any:
    """What reads the counter of a code object at an address, -8 to 0; None if it is not where it is expected."""
    global _read  # noqa: PLW0603
    if _read is False:
        _read = _tried()
    return _read


_read: Any = False


def _tried() -> Any:
    if sys.implementation.name != "cpython" or sys.version_info[:2] != (3, 11):
        return None
    # Not ctypes, whose import takes a millisecond.
    from _ctypes import _SimpleCData

    class Short(_SimpleCData):  # type: ignore[type-arg]
        _type_ = "h"

    read: Any = Short.from_address
    probe: Any = eval("lambda: None")  # noqa: S307 - a function that was never executed
    before = read(id(probe.__code__) + _OFFSET).value
    probe()
    return read if (before, read(id(probe.__code__) + _OFFSET).value) == (-_FULL, 1 - _FULL) else None
