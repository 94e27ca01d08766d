"""Weighted sums of feature planes, the step that all CAM methods share; knows no weights of its own."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cam_core.errors import MethodNotApplicable
from cam_core.method import Evidence


def weighted_sum(weights: NDArray[np.floating], activations: NDArray[np.float32]) -> NDArray[np.float32]:
    """``M_l = sum_k w_lk * A_k`` for each finding l, summed in double precision.

    Parameters
    ----------
    weights : (L, Ch) or (L, Ch, *cells) float
        One number a channel, or one a channel and cell.
    activations : (Ch, *cells) float32

    Returns
    -------
    (L, *cells) float32
    """
    channels, cells = len(activations), activations.shape[1:]
    planes = activations.reshape(channels, -1).astype(np.float64)
    if weights.ndim == 2:
        total = weights.astype(np.float64) @ planes
    else:
        total = np.einsum("lkp,kp->lp", weights.reshape(len(weights), channels, -1), planes)
    return total.reshape(len(weights), *cells).astype(np.float32)


def positive_sum(weights: NDArray[np.floating], activations: NDArray[np.float32]) -> NDArray[np.float32]:
    """``ReLU(sum_k w_lk * A_k)``; see `weighted_sum`."""
    total = weighted_sum(weights, activations)
    return np.maximum(total, np.float32(0), out=total)


def flat(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """The cells of (..., Ch, *cells) in one last axis, given that channels stand at axis 1: (L, Ch, P)."""
    return values.reshape(*values.shape[:2], -1)


def flat_gradients(evidence: Evidence, method: str) -> NDArray[np.float32]:
    """Gradients (L, Ch, P) of the asked logits.

    Raises
    ------
    MethodNotApplicable
        When there are none.
    """
    if evidence.gradients is None:
        raise MethodNotApplicable(method, "there are no gradients")
    return flat(evidence.gradients)
