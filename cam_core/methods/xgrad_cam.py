"""XGrad-CAM: channel weights are gradients averaged by the activations, which satisfies two axioms best."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cam_core.classifier import Capability
from cam_core.method import Evidence, Method, RawMaps, Scale
from cam_core.methods.combination import flat_gradients, positive_sum


def xgrad_cam(evidence: Evidence) -> RawMaps:
    """``w_k = sum_ij(g_k[i, j] * A_k[i, j]) / sum_ij A_k[i, j]``, ``L_c = ReLU(sum_k w_k * A_k)``, with g = dy_c / dA.

    Source: Fu et al. 2020, equation 8. The authors' code adds 1e-6 to the divisor, pytorch-grad-cam 1e-7 and torchcam
    1e-8. Here the weight is 0 where the activations sum to 0, or to no more than the rounding of their own size: a
    dead channel, or one whose signs cancel, has no average by itself.
    """
    gradients = flat_gradients(evidence, "xgrad-cam")
    planes = evidence.activations.reshape(len(evidence.activations), -1).astype(np.float64)
    return RawMaps(values=positive_sum(_weights(gradients, planes), evidence.activations))


def _weights(gradients: NDArray[np.float32], planes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Channel weights (L, Ch) from gradients (L, Ch, P) and planes (Ch, P)."""
    products = np.einsum("lkp,kp->lk", gradients, planes)
    sums = planes.sum(axis=1)
    usable = np.abs(sums) > np.finfo(np.float32).eps * np.abs(planes).sum(axis=1)
    weights: NDArray[np.float64] = np.divide(products, sums, out=np.zeros_like(products), where=usable)
    return weights


METHODS = (
    Method(
        name="xgrad-cam",
        title="XGrad-CAM",
        family="linear",
        needs=frozenset({Capability.ACTIVATIONS, Capability.GRADIENTS}),
        scale=Scale(signed=False, unit="logit"),
        reference="Fu R et al. Axiom-based Grad-CAM: Towards Accurate Visualization and Explanation of CNNs. BMVC 2020",
        maps=xgrad_cam,
    ),
)
