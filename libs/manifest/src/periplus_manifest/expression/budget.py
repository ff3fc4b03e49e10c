"""Limits of one evaluation, so that no expression hangs or fills the memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from periplus_manifest.errors import ExpressionError

MAX_STEPS = 500_000
MAX_VALUE_SIZE = 1 << 20  # characters of a text, items of a list or map
MAX_ALLOCATED = 32 << 20  # characters and items of all values together
_MAX_NESTING = 100


class Budget:
    """Counts the steps of one evaluation and the size of its values; raises ExpressionError above a limit."""

    def __init__(self) -> None:
        self._steps = 0
        self._allocated = 0
        self.parsed_json: dict[str, Any] = {}

    def step(self, count: int = 1) -> None:
        """Count steps."""
        self._steps += count
        if self._steps > MAX_STEPS:
            raise ExpressionError("", f"the expression takes more than {MAX_STEPS} steps")

    def allocate(self, size: int) -> None:
        """Count a text of `size` characters, or a list of `size` items, before it is built."""
        self._allocated += size
        if size > MAX_VALUE_SIZE or self._allocated > MAX_ALLOCATED:
            raise ExpressionError(
                "", f"the expression makes a value larger than {MAX_VALUE_SIZE} characters or items"
            )

    def text(self, text: str) -> str:
        """Count a text that was built from texts within the limits, and return it."""
        self.allocate(len(text))
        return text

    def measure(self, value: Any) -> Any:
        """Count a value that is about to be written or compared as a whole, and return it; shared items count each time."""
        if isinstance(value, str):
            self.allocate(len(value))
            return value
        size = items = 0
        pending = [(value, 0)]
        while pending:
            item, depth = pending.pop()
            items += 1
            size += len(item) + 1 if isinstance(item, str) else 1
            if size > MAX_VALUE_SIZE:
                self.allocate(size)
            if isinstance(item, (Mapping, list, tuple)):
                if depth > _MAX_NESTING:
                    raise ExpressionError("", "a value is nested too deeply")
                if len(item) + len(pending) > MAX_VALUE_SIZE:
                    self.allocate(len(item) + len(pending))
                if isinstance(item, Mapping):
                    size += sum(len(key) for key in item if isinstance(key, str))
                    pending += [(inner, depth + 1) for inner in item.values()]
                else:
                    pending += [(inner, depth + 1) for inner in item]
        self.allocate(size)
        self.step(items >> 2)
        return value
