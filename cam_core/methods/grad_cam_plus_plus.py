"""Grad-CAM++: channel weights are positive gradients weighted cell by cell, for several objects of one class."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cam_core.classifier import Capability
from cam_core.errors import MethodNotApplicable
from cam_core.method import Evidence, Method, RawMaps, Scale
from cam_core.methods.combination import flat, positive_sum

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
    if evidence.gradients is None:
        raise MethodNotApplicable("grad-cam++", "there are no gradients")
    sums = evidence.activations.reshape(len(evidence.activations), -1).sum(axis=1, dtype=np.float64)
    weights = _weights(flat(evidence.gradients).astype(np.float64), sums[:, None], normalise=normalise)
    return RawMaps(values=positive_sum(weights, evidence.activations))


def _weights(gradient: NDArray[np.float64], sums: NDArray[np.float64], *, normalise: bool) -> NDArray[np.float64]:
    """Channel weights (L, Ch) from gradients (L, Ch, P) and the planes' sums (Ch, 1)."""
    divisor = 2 + sums * gradient
    usable = (gradient != 0) & (divisor != 0)
    alpha = np.divide(1.0, divisor, out=np.zeros_like(divisor), where=usable)
    positive = np.maximum(gradient, 0)
    if normalise:
        total = np.where(positive > 0, alpha, 0.0).sum(axis=2, keepdims=True)
        alpha /= np.where(total == 0, 1.0, total)
    weights: NDArray[np.float64] = (alpha * positive).sum(axis=2)
    return weights


METHODS = tuple(
    Method(
        name="grad-cam++",
        title="Grad-CAM++",
        variant=variant,
        family="gradient squared",
        needs=frozenset({Capability.ACTIVATIONS, Capability.GRADIENTS}),
        scale=Scale(signed=False, unit="logit"),
        reference=REFERENCE,
        maps=maps,
    )
    for variant, maps in (("paper", paper), ("original", original))
)
