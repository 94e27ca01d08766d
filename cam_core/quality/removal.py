"""An input with its cells taken away in an order that a map gives; knows no score."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Baseline = Literal["blur", "mean", "zero"]

BLUR_SHARE = 0.05
"""Standard deviation of the blurred baseline, part of each axis: 11 of 224 pixels."""


def baseline_input(image: NDArray[np.float32], kind: Baseline) -> NDArray[np.float32]:
    """What stands where cells were taken away.

    Parameters
    ----------
    image : (C, *grid) float32
    kind : {"blur", "mean", "zero"}
        The image blurred beyond recognition, each channel's mean, or zero of the model's normalised input.
    """
    if kind == "zero":
        return np.zeros_like(image)
    if kind == "mean":
        axes = tuple(range(1, image.ndim))
        means = image.mean(axis=axes, keepdims=True, dtype=np.float64)
        return np.broadcast_to(means.astype(np.float32), image.shape).copy()
    if kind == "blur":
        widths = (0.0, *(BLUR_SHARE * size for size in image.shape[1:]))
        blurred: NDArray[np.float32] = ndimage.gaussian_filter(image, widths, mode="nearest")
        return blurred
    raise ValueError(f"unknown baseline {kind!r}; known: blur, mean, zero")


def relevance_ranks(values: NDArray[np.floating], seed: int) -> NDArray[np.intp]:
    """Rank of each cell, 0 for the most relevant; ties in a random order that the seed fixes.

    Cut-off maps are zero over large parts: with ties in the order of storage those would be taken from the top down.
    """
    ties = np.random.default_rng(seed).permutation(values.size)
    order = np.lexsort((ties, -values.ravel()))
    ranks = np.empty(values.size, dtype=np.intp)
    ranks[order] = np.arange(values.size)
    return ranks.reshape(values.shape)


def cell_counts(cells: int, steps: int) -> NDArray[np.intp]:
    """How many cells are gone after each of `steps` equal steps: 0, ..., all, without repeats."""
    return np.unique(np.rint(np.linspace(0, cells, steps + 1))).astype(np.intp)


def replaced(
    image: NDArray[np.float32],
    other: NDArray[np.float32],
    ranks: NDArray[np.intp],
    counts: NDArray[np.intp],
    most: int,
) -> Iterator[NDArray[np.float32]]:
    """The image with its `count` first ranks taken from `other`, for each count, in batches (n <= most, C, *grid)."""
    for first in range(0, len(counts), most):
        levels = counts[first : first + most].reshape(-1, *(1,) * ranks.ndim)
        gone = ranks[None] < levels
        yield np.where(gone[:, None], other[None], image[None])
