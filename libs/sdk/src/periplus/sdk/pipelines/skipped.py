"""The result of a skipped step in plain Python: steps that take it are skipped as well, as in Argo."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


class Skipped:
    """Stands for the outputs of a step that was skipped."""

    def __init__(self, outputs: int) -> None:
        self._outputs = outputs

    def __getattr__(self, name: str) -> Skipped:
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __iter__(self) -> Iterator[Skipped]:
        return iter([self] * self._outputs)

    def __bool__(self) -> bool:
        return False

    def _never(self, _: object) -> bool:
        return False

    __gt__ = __ge__ = __lt__ = __le__ = _never

    def __repr__(self) -> str:
        return "<skipped>"


def any_skipped(values: Any) -> bool:
    """Whether one of a call's arguments is the output of a step that was skipped."""
    return any(isinstance(value, Skipped) for value in values)
