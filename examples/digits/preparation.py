"""Images to numbers that a model can learn from."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

# The images have 17 shades, from 0 to 16.
BRIGHTEST = 16.0


def normalise(pixels: np.ndarray) -> np.ndarray:
    """Shades between 0 and 1."""
    return pixels / BRIGHTEST


def edges(grey: np.ndarray) -> np.ndarray:
    """How much each image changes from row to row and from column to column, as one row of numbers each."""
    import numpy as np

    down = np.abs(np.diff(grey, axis=1)).sum(axis=1)
    across = np.abs(np.diff(grey, axis=2)).sum(axis=2)
    return np.hstack([down, across]) / grey.shape[1]


def shuffled(count: int, seed: int) -> np.ndarray:
    """The numbers below `count` in an order that the seed decides."""
    import numpy as np

    return np.random.default_rng(seed).permutation(count)
