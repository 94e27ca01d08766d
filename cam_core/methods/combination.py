"""Weighted sums of feature planes, the step that all CAM methods share; knows no weights of its own."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def weighted_sum(weights: NDArray[np.floating], activations: NDArray[np.float32]) -> NDArray[np.float32]:
    """``sum_k w_k * A_k`` in double precision and in the channels' own order, so bit-identical on every run.

    Parameters
    ----------
    weights : (Ch,) or (Ch, h, w) float
    activations : (Ch, h, w) float32

    Returns
    -------
    (h, w) float32
    """
    wide = weights.astype(np.float64).reshape(*weights.shape, *[1] * (3 - weights.ndim))
    total: NDArray[np.float64] = (wide * activations).sum(axis=0)
    return total.astype(np.float32)


def positive_sum(weights: NDArray[np.floating], activations: NDArray[np.float32]) -> NDArray[np.float32]:
    """``ReLU(sum_k w_k * A_k)``; see `weighted_sum`."""
    total: NDArray[np.float32] = np.maximum(weighted_sum(weights, activations), np.float32(0))
    return total
