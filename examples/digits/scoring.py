"""How well answers fit."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def accuracy(figures: np.ndarray, answers: np.ndarray) -> float:
    """The share of right answers, to four decimals."""
    return round(float((figures == answers).mean()), 4)


def confusion(figures: np.ndarray, answers: np.ndarray) -> list[list[int]]:
    """For each figure shown (row), how often each figure (column) was the answer."""
    table = [[0] * 10 for _ in range(10)]
    for figure, answer in zip(figures.tolist(), answers.tolist(), strict=True):
        table[figure][answer] += 1
    return table
