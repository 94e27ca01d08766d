"""Whether a classifier's head is global average pooling and one linear layer; asks by derivatives, knows no runtime."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

TRIALS = (0.1, 1.0, 30.0)
"""Sizes of the random activations at which the derivatives are compared."""

TOLERANCE = 1e-4
"""Greatest relative difference of derivatives that count as the same."""


def linear_head(
    derivatives: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    shape: Sequence[int],
    labels: int,
    candidates: Sequence[NDArray[np.float32]],
) -> NDArray[np.float32] | None:
    """Weights (K, Ch) with ``logit = bias + weights @ mean(activations)``, or None when there are none.

    The head is such a layer when its derivatives are the same everywhere in space and at random activations of both
    signs and very different sizes: any gate or second layer would show.

    Parameters
    ----------
    derivatives : callable
        Derivatives (K, Ch, *cells) of the logits at given activations (Ch, *cells).
    shape : (Ch, *cells)
    labels : int
    candidates : sequence of float32 arrays
        Weights of the model's linear layers; the exact one is returned when it agrees with what was measured.
    """
    source = np.random.default_rng(0)
    found = [derivatives((source.standard_normal(shape) * size).astype(np.float32)) for size in TRIALS]
    weights = found[0].reshape(*found[0].shape[:2], -1).sum(axis=2, dtype=np.float64)
    size = np.abs(weights).max(initial=0.0)
    if not np.isfinite(size) or size == 0:
        return None
    cells = int(np.prod(shape[1:]))
    flat = weights[:, :, None] / cells
    if any(np.abs(one.reshape(*weights.shape, -1) - flat).max() * cells > TOLERANCE * size for one in found):
        return None
    for candidate in candidates:
        if candidate.shape == (labels, shape[0]) and np.abs(candidate - weights).max() <= TOLERANCE * size:
            return candidate
    measured: NDArray[np.float32] = weights.astype(np.float32)
    return measured
