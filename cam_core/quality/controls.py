"""Maps that know nothing of the model, to read the measures against; knows no measure.

A method that is no better than these on a set says nothing there, whatever its figures.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def random_map(grid: tuple[int, ...], seed: int) -> NDArray[np.float32]:
    """Independent uniform values."""
    return np.random.default_rng(seed).random(grid, dtype=np.float32)


def centre_gaussian(grid: tuple[int, ...], share: float = 0.25) -> NDArray[np.float32]:
    """A Gaussian about the middle, its standard deviation `share` of each axis."""
    axes = [((np.arange(size) - (size - 1) / 2) / (share * size)) ** 2 for size in grid]
    total = sum(np.meshgrid(*axes, indexing="ij"), start=np.zeros(grid))
    return np.exp(-total / 2).astype(np.float32)
