"""Grad-CAM++: channel weights are positive gradients weighted cell by cell, for several objects of one class."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cam_core.classifier import Capability
from cam_core.method import Evidence, Method, RawMaps, Scale
from cam_core.methods.combination import flat_gradients, positive_sum

REFERENCE = (
    "Chattopadhay A et al. Grad-CAM++: Generalized Gradient-Based Visual Explanations for Deep Convolutional "
    "Networks. WACV 2018"
)


def paper(evidence: Evidence) -> RawMaps:
    """``w_k = sum_ij alpha_k[i, j] * ReLU(g_k[i, j])``, ``L_c = ReLU(sum_k w_k * A_k)``, with g = dy_c / dA.

    ``alpha = g^2 / (2 g^2 + S_A g^3)`` with ``S_A = sum_ij A_k[i, j]`` (Chattopadhay et al. 2018, equation 19, closed
    form for exp(y_c)), computed as ``1 / (2 + S_A g)`` where g is not 0, and 0 where it is: the same number without the
    cancellation and without any absolute guard. Where ``2 + S_A g`` is 0 there is no weight and alpha is 0. The factor
    exp(y_c) of the weights is one number for the whole map and is left out of the raw values.
    """
    return _maps(evidence, normalise=False)


def original(evidence: Evidence) -> RawMaps:
    """As `paper`, but each channel's alphas are first divided by their sum over the cells with positive gradient.

    This is what the authors' published code does in addition to the paper; a sum of 0 is taken as 1.
    """
    return _maps(evidence, normalise=True)


def _maps(evidence: Evidence, *, normalise: bool) -> RawMaps:
    gradients = flat_gradients(evidence, "grad-cam++")
    sums = evidence.activations.reshape(len(evidence.activations), -1).sum(axis=1, dtype=np.float64)
    weights = [_weights(one, sums[:, None], normalise=normalise) for one in gradients]
    return RawMaps(values=positive_sum(np.stack(weights), evidence.activations))


def _weights(gradients: NDArray[np.float32], sums: NDArray[np.float64], *, normalise: bool) -> NDArray[np.float64]:
    """Channel weights (Ch,) from the gradients (Ch, P) of one finding and the planes' sums (Ch, 1).

    Only cells with positive gradient count, so ``2 + S_A g`` can cancel only where S_A is negative: then, and only
    then, single precision would not do. One finding at a time stays in the processor's cache.
    """
    positive: NDArray[np.floating] = np.maximum(gradients, np.float32(0))
    totals: NDArray[np.floating] = sums.astype(np.float32)
    if sums.min() < 0:
        positive, totals = positive.astype(np.float64), sums
    divisors = 2 + totals * positive
    divisors[divisors == 0] = np.inf
    weights: NDArray[np.float64] = (positive / divisors).sum(axis=1, dtype=np.float64)
    if normalise:
        shares = ((positive > 0) / divisors).sum(axis=1, dtype=np.float64)
        weights /= np.where(shares == 0, 1.0, shares)
    return weights


METHODS = tuple(
    Method(
        name="grad-cam++",
        title="Grad-CAM++",
        variant=variant,
        family="positive gradient",
        needs=frozenset({Capability.ACTIVATIONS, Capability.GRADIENTS}),
        scale=Scale(signed=False, unit="logit"),
        reference=REFERENCE,
        maps=maps,
    )
    for variant, maps in (("paper", paper), ("original", original))
)
