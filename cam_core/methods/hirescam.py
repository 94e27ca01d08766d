"""HiResCAM: each cell counts with its own gradient, so the map shows what the model really used."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cam_core.classifier import Capability
from cam_core.method import Evidence, Method, RawMaps, Scale
from cam_core.methods.combination import flat_gradients, weighted_sum

CANCELLED = 1e-4
"""A map that stays below this part of what its channels would add up to without their signs is nothing but rounding."""


def hirescam(evidence: Evidence) -> RawMaps:
    """``M_c = sum_k (dy_c / dA_k) * A_k``, cell by cell.

    Source: Draelos and Carin 2020, equation 4. The paper and its authors' code take no ReLU, so evidence against the
    finding stays negative. For a head of global average pooling and one linear layer, and for one linear layer on the
    flattened planes, the cells sum to the logit minus the bias: the map is the whole of the evidence.

    Where the next layer takes each cell's scale away, as the layer norm behind a transformer's block does, a cell's
    gradient is at right angles to its activations: the sum is 0 by theory and rounding in practice. Such a map is given
    as 0 (`CANCELLED`).
    """
    gradients = flat_gradients(evidence, "hirescam")
    values = weighted_sum(gradients, evidence.activations)
    for one, slopes in zip(values, gradients, strict=True):
        if _cancels(one, slopes, evidence.activations):
            one[:] = 0
    return RawMaps(values=values)


def _cancels(values: NDArray[np.float32], gradients: NDArray[np.float32], activations: NDArray[np.float32]) -> bool:
    """Whether a map is nothing but the rounding of products (Ch, P) that cancel; told by a bound where that does."""
    least = float(np.abs(values).max()) / CANCELLED
    if least > float(max(gradients.max(), -gradients.min())) * float(np.abs(activations).sum(axis=0).max()):
        return False
    return least <= float(weighted_sum(np.abs(gradients)[None], np.abs(activations)).max())


METHODS = (
    Method(
        name="hirescam",
        title="HiResCAM",
        family="linear",
        needs=frozenset({Capability.ACTIVATIONS, Capability.GRADIENTS}),
        scale=Scale(signed=True, unit="logit"),
        reference="Draelos RL, Carin L. Use HiResCAM instead of Grad-CAM for faithful explanations of convolutional "
        "neural networks. arXiv:2011.08891, 2020",
        maps=hirescam,
    ),
)
