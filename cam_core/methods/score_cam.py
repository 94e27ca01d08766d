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

from cam_core.classifier import Capability
from cam_core.method import Evidence, Method, RawMaps, Scale
from cam_core.methods.combination import weighted_sum
from cam_core.methods.masking import BASELINE, PlaneMasks, channel_maps, channel_softmax, masked_scores
from cam_core.methods.score_cam_clustered import METHOD as CLUSTERED
from cam_core.registration import cells_on_grid, input_registration

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
    return RawMaps(values=channel_maps(evidence, np.where(np.isnan(gains), 0.0, gains)), baseline=BASELINE)


def paper(evidence: Evidence) -> RawMaps:
    """``alpha = softmax_k(Y_c(X * U(A_k)) - Y_c(baseline))``, ``L_c = ReLU(sum_k alpha_k * A_k)``.

    Wang et al. 2020, algorithm 1: the softmax runs over the channels that make a mask. Subtracting the baseline has no
    effect inside it, all weights are positive, and how specific they are depends on the scale of the logits.
    """
    weights = channel_softmax(masked_scores(evidence, MASKS).scores)
    return RawMaps(values=channel_maps(evidence, weights), baseline=BASELINE)


def original(evidence: Evidence) -> RawMaps:
    """``alpha_k = p_c(X * U(A_k))``, ``L_c = ReLU(sum_k alpha_k * U(A_k))``, on the model's own grid.

    This is what the authors' published code does: the probability itself is the weight, without any baseline, and
    planes are joined after they have been spread over the input, before they are brought to 0..1. p_c is the softmax
    over the labels as in that code, or the sigmoid where the model's card says that its labels don't exclude each
    other. Spreading is linear, so the joined plane is spread here.
    """
    chances = evidence.probabilities(masked_scores(evidence, MASKS).scores)
    weights = np.where(np.isnan(chances), 0.0, chances)[:, list(evidence.labels)].T
    joined = weighted_sum(weights, evidence.activations)
    values = np.maximum(cells_on_grid(joined, evidence.registration, evidence.grid), np.float32(0))
    return RawMaps(values=values, registration=input_registration(evidence.grid))


_OF_ALL_CHANNELS = tuple(
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
        reads="probability" if maps is original else "logit",
    )
    for variant, maps, unit in (
        ("delta", delta, "logit times activation"),
        ("paper", paper, "activation, as a weighted mean of channels"),
        ("original", original, "probability times activation"),
    )
)

METHODS = (*_OF_ALL_CHANNELS, CLUSTERED)
