"""What one evaluation may spend, so that no expression hangs or fills the memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from periplus_manifest.errors import ExpressionError

MOST_STEPS = 500_000
LARGEST = 1 << 20
MOST_MADE = 32 << 20
_DEEPEST = 100


class Budget:
    """Counts steps and what was made, and raises ExpressionError when it is too much."""

    def __init__(self) -> None:
        self._steps = 0
        self._made = 0
        self.parsed: dict[str, Any] = {}

    def step(self, count: int = 1) -> None:
        """Spend steps."""
        self._steps += count
        if self._steps > MOST_STEPS:
            raise ExpressionError("", f"the expression takes more than {MOST_STEPS} steps")

    def room(self, size: int) -> None:
        """Spend room for a text of so many characters, or a list of so many items, before it is made."""
        self._made += size
        if size > LARGEST or self._made > MOST_MADE:
            raise ExpressionError(
                "", f"the expression makes a value larger than {LARGEST} characters or items"
            )

    def text(self, text: str) -> str:
        """Spend room for a text that was made from others of allowed size."""
        self.room(len(text))
        return text

    def weigh(self, value: Any) -> Any:
        """Walk a value that is about to be written or compared as a whole, parts that it holds twice twice."""
        if isinstance(value, str):
            self.room(len(value))
            return value
        size = parts = 0
        waiting = [(value, 0)]
        while waiting:
            part, depth = waiting.pop()
            parts += 1
            size += len(part) + 1 if isinstance(part, str) else 1
            if size > LARGEST:
                self.room(size)
            if isinstance(part, (Mapping, list, tuple)):
                if depth > _DEEPEST:
                    raise ExpressionError("", "a value is nested too deeply")
                if len(part) + len(waiting) > LARGEST:
                    self.room(len(part) + len(waiting))
                if isinstance(part, Mapping):
                    size += sum(len(key) for key in part if isinstance(key, str))
                    waiting += [(item, depth + 1) for item in part.values()]
                else:
                    waiting += [(item, depth + 1) for item in part]
        self.room(size)
        self.step(parts >> 2)
        return value
