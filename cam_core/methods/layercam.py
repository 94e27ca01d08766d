"""LayerCAM: each cell counts with its own gradient where that is positive; made for early layers, too."""

from __future__ import annotations

import numpy as np

from cam_core.classifier import Capability
from cam_core.method import Evidence, Method, RawMaps, Scale
from cam_core.methods.combination import flat_gradients, positive_sum


def layercam(evidence: Evidence) -> RawMaps:
    """``w_k[i, j] = ReLU(dy_c / dA_k[i, j])``, ``L_c = ReLU(sum_k w_k * A_k)``, cell by cell.

    Source: Jiang et al. 2021, equations 5 to 7. The paper's way of joining the maps of several layers is no part of
    this: one layer is explained. Where no activation is negative the outer ReLU changes nothing.
    """
    weights = np.maximum(flat_gradients(evidence, "layercam"), np.float32(0))
    return RawMaps(values=positive_sum(weights, evidence.activations))


METHODS = (
    Method(
        name="layercam",
        title="LayerCAM",
        family="positive gradient",
        needs=frozenset({Capability.ACTIVATIONS, Capability.GRADIENTS}),
        scale=Scale(signed=False, unit="logit"),
        reference="Jiang PT et al. LayerCAM: Exploring Hierarchical Class Activation Maps for Localization. IEEE "
        "Transactions on Image Processing 2021",
        maps=layercam,
    ),
)
