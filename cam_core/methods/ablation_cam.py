"""Ablation-CAM: channel weights are what the logit loses when the channel is taken away; no gradients."""

from __future__ import annotations

import numpy as np

from cam_core.classifier import Capability
from cam_core.method import Evidence, Method, RawMaps, Scale
from cam_core.methods.combination import positive_sum


def ablation_cam(evidence: Evidence) -> RawMaps:
    """``w_k = (y_c - y_ck) / |y_c|``, ``L_c = ReLU(sum_k w_k * A_k)``, with y_ck the logit when channel k is 0.

    Source: Desai and Ramaswamy 2020, equation 3, whose divisor is y_c itself. There the sign turns for negative
    logits, the rule rather than the exception for multi-label models, and the map shows what speaks against the
    finding; pytorch-grad-cam has kept that. The divisor's size is one number for the whole map; where y_c is 0 it is
    left out.
    """
    labels = list(evidence.labels)
    logits = evidence.logits[labels].astype(np.float64)[:, None]
    losses = logits - evidence.ablated()[:, labels].T
    weights = losses / np.where(logits == 0, 1.0, np.abs(logits))
    return RawMaps(values=positive_sum(weights, evidence.activations), baseline="channel of the target layer set to 0")


METHODS = (
    Method(
        name="ablation-cam",
        title="Ablation-CAM",
        family="ablation",
        needs=frozenset({Capability.ACTIVATIONS, Capability.HEAD}),
        scale=Scale(signed=False, unit="activation times share of the logit"),
        reference="Desai S, Ramaswamy HG. Ablation-CAM: Visual Explanations for Deep Convolutional Network via "
        "Gradient-free Localization. WACV 2020",
        maps=ablation_cam,
    ),
)
