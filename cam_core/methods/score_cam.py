"""Score-CAM: channel weights are what the model says of the image seen through each feature plane; no gradients.

The mask of channel k is its plane, spread over the input by the measured registration of the cells (the paper uses the
plain upsampling of its library, which paints the cells in the wrong place for most networks; explaining with
``align="library"`` does that), then brought to 0..1 by its own smallest and largest value. The masked input is the
normalised model input times the mask. A constant plane makes no mask: its weight is exactly 0 and no pass is spent.

Y_c is the logit of finding c. The baseline is the same input with every pixel masked out, that is all zeros after
normalisation; it is recorded with the map.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cam_core.classifier import Capability
from cam_core.method import Evidence, Method, RawMaps, Scale
from cam_core.methods.combination import positive_sum
from cam_core.methods.masking import BASELINE, PlaneMasks, masked_scores

REFERENCE = (
    "Wang H et al. Score-CAM: Score-Weighted Visual Explanations for Convolutional Neural Networks. CVPR Workshops 2020"
)

MASKS = PlaneMasks()


def delta(evidence: Evidence) -> RawMaps:
    """``alpha_k = Y_c(X * U(A_k)) - Y_c(baseline)``, ``L_c = ReLU(sum_k alpha_k * A_k)``, with U as above.

    The difference itself is the weight, so a channel that speaks against the finding counts against it. This is the
    paper's "channel-wise increase of confidence" (definition 1) without the softmax that its algorithm adds.
    """
    masked = masked_scores(evidence, MASKS)
    gains = masked.scores.astype(np.float64) - masked.baseline
    return _maps(evidence, np.where(np.isnan(gains), 0.0, gains))


def paper(evidence: Evidence) -> RawMaps:
    """``alpha = softmax_k(Y_c(X * U(A_k)) - Y_c(baseline))``, ``L_c = ReLU(sum_k alpha_k * A_k)``.

    Wang et al. 2020, algorithm 1: the softmax runs over the channels that make a mask. Subtracting the baseline has no
    effect inside it, all weights are positive, and how specific they are depends on the scale of the logits.
    """
    return _maps(evidence, channel_softmax(masked_scores(evidence, MASKS).scores))


def channel_softmax(scores: NDArray[np.float32]) -> NDArray[np.float64]:
    """Softmax over the channels (Ch, K) that made a mask; 0 for those that made none (NaN)."""
    wide = scores.astype(np.float64)
    powers = np.where(np.isnan(wide), 0.0, np.exp(wide - np.nanmax(wide, axis=0, keepdims=True)))
    shares: NDArray[np.float64] = powers / powers.sum(axis=0, keepdims=True)
    return shares


def _maps(evidence: Evidence, weights: NDArray[np.float64]) -> RawMaps:
    """Maps from channel weights (Ch, K)."""
    return RawMaps(values=positive_sum(weights[:, list(evidence.labels)].T, evidence.activations), baseline=BASELINE)


METHODS = tuple(
    Method(
        name="score-cam",
        title="Score-CAM",
        variant=variant,
        family="masking",
        needs=frozenset({Capability.SCORES, Capability.ACTIVATIONS}),
        scale=Scale(signed=False, unit=unit),
        reference=REFERENCE,
        maps=maps,
        asks=(MASKS,),
    )
    for variant, maps, unit in (
        ("delta", delta, "logit times activation"),
        ("paper", paper, "activation, as a weighted mean of channels"),
    )
)
