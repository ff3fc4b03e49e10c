"""The size and the nesting of values, measured without recursion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def text_size(value: Any) -> int:
    """Return the characters of the texts in nested maps and lists, keys included: about the bytes of its JSON."""
    size, pending = 0, [value]
    while pending:
        each = pending.pop()
        if isinstance(each, str):
            size += len(each) + 3
        elif isinstance(each, Mapping):
            size += sum(len(key) + 4 for key in each)
            pending += each.values()
        elif isinstance(each, list):
            pending += each
    return size


def nesting(value: Any) -> int:
    """Return how many maps and lists are within one another; 0 for any other value."""
    deepest, pending = 0, [(value, 1)]
    while pending:
        each, depth = pending.pop()
        if isinstance(each, Mapping | list):
            deepest = max(deepest, depth)
            inner = each.values() if isinstance(each, Mapping) else each
            pending += [(item, depth + 1) for item in inner if isinstance(item, Mapping | list)]
    return deepest
