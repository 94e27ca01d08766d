"""Gradient-weighted class activation mapping: channel weights are spatial means of the gradient."""

from __future__ import annotations

import numpy as np

from cam_core.classifier import Capability
from cam_core.method import Evidence, Method, RawMaps, Scale
from cam_core.methods.combination import flat_gradients, positive_sum


def grad_cam(evidence: Evidence) -> RawMaps:
    """``alpha_k = mean_ij(dy_c / dA_k[i, j])``, ``L_c = ReLU(sum_k alpha_k * A_k)``, with y_c the logit.

    Source: Selvaraju et al. 2017, equations 1 and 2.
    """
    weights = flat_gradients(evidence, "grad-cam").mean(axis=2, dtype=np.float64)
    return RawMaps(values=positive_sum(weights, evidence.activations))


METHODS = (
    Method(
        name="grad-cam",
        title="Grad-CAM",
        family="linear",
        needs=frozenset({Capability.ACTIVATIONS, Capability.GRADIENTS}),
        scale=Scale(signed=False, unit="logit"),
        reference="Selvaraju RR et al. Grad-CAM: Visual Explanations from Deep Networks via Gradient-based "
        "Localization. ICCV 2017",
        maps=grad_cam,
    ),
)
