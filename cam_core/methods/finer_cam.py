"""Finer-CAM: what speaks for the finding rather than for the findings most like it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cam_core.classifier import Capability
from cam_core.errors import MethodNotApplicable
from cam_core.method import Evidence, Method, RawMaps, Scale
from cam_core.methods.combination import flat, positive_sum

STRENGTH = 0.6
"""How much of the similar labels is taken away (gamma); 0 is Grad-CAM."""

SIMILAR = 3
"""With how many labels, those of the nearest logits, the finding is compared; fewer where the model has fewer."""


def finer_cam(evidence: Evidence) -> RawMaps:
    """Grad-CAM of ``y_c - gamma * mean_d y_d`` over the `SIMILAR` labels d whose logits are nearest to y_c.

    ``w_k = mean_ij(g_ck - gamma * mean_d g_dk)``, ``L_c = ReLU(sum_k w_k * A_k)``. Source: Zhang et al. 2025. gamma
    and the number of labels are `STRENGTH` and `SIMILAR`, as torchcam has them; pytorch-grad-cam takes gamma 1 and
    weighs the similar labels by their probabilities. Of labels that are equally near the first ones are taken.

    Raises
    ------
    MethodNotApplicable
        When the model has but one label, so that there is nothing to compare with.
    """
    if evidence.label_gradients is None:
        raise MethodNotApplicable("finer-cam", "there are no gradients of every label")
    if len(evidence.label_gradients) < 2:
        raise MethodNotApplicable("finer-cam", "the model has one label, there is none to compare it with")
    means = flat(evidence.label_gradients).mean(axis=2, dtype=np.float64)
    weights = [
        means[label] - STRENGTH * means[_similar(evidence.logits, label)].mean(axis=0) for label in evidence.labels
    ]
    return RawMaps(values=positive_sum(np.stack(weights), evidence.activations))


def _similar(logits: NDArray[np.float32], label: int) -> NDArray[np.intp]:
    """The labels whose logits are nearest to that of `label`, without itself."""
    others = np.delete(np.arange(logits.size), label)
    distances = np.abs(logits[others].astype(np.float64) - logits[label])
    nearest: NDArray[np.intp] = others[np.argsort(distances, kind="stable")[:SIMILAR]]
    return nearest


METHODS = (
    Method(
        name="finer-cam",
        title="Finer-CAM",
        family="contrast",
        needs=frozenset({Capability.ACTIVATIONS, Capability.GRADIENTS}),
        scale=Scale(signed=False, unit="logit"),
        reference="Zhang Z et al. Finer-CAM: Spotting the Difference Reveals Finer Details for Visual Explanation. "
        "CVPR 2025",
        maps=finer_cam,
        every_label=True,
    ),
)
