"""Shapley-CAM: Grad-CAM's weights corrected by the curvature of the logit, as in a game among the channels."""

from __future__ import annotations

import numpy as np

from cam_core.classifier import Capability
from cam_core.errors import MethodNotApplicable
from cam_core.method import Evidence, Method, RawMaps, Scale
from cam_core.methods.combination import flat, flat_gradients, positive_sum


def shapley_cam(evidence: Evidence) -> RawMaps:
    """``w_k = mean_ij(g_k - (H A)_k / 2)``, ``L_c = ReLU(sum_k w_k * A_k)``, with g and H of the logit y_c.

    Source: Cai 2025: the Shapley value of a channel when y_c is taken to its second order in the activations A, with
    H the Hessian ``d2y_c / dA2``. Where y_c is piecewise linear in A, as for a head of global average pooling and one
    linear layer, H is 0 and this is Grad-CAM.

    Raises
    ------
    MethodNotApplicable
        When there are no second derivatives.
    """
    gradients = flat_gradients(evidence, "shapley-cam")
    if evidence.curvatures is None:
        raise MethodNotApplicable("shapley-cam", "there are no second derivatives")
    bends = flat(evidence.curvatures).mean(axis=2, dtype=np.float64)
    weights = gradients.mean(axis=2, dtype=np.float64) - bends / 2
    return RawMaps(values=positive_sum(weights, evidence.activations))


METHODS = (
    Method(
        name="shapley-cam",
        title="Shapley-CAM",
        family="linear",
        needs=frozenset({Capability.ACTIVATIONS, Capability.GRADIENTS, Capability.CURVATURES}),
        scale=Scale(signed=False, unit="logit"),
        reference="Cai H. CAMs as Shapley Value-based Explainers. arXiv:2501.06261, 2025",
        maps=shapley_cam,
    ),
)
