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

from cam_core.classifier import Capability, Classifier
from cam_core.errors import ExplanationFailed
from cam_core.method import Evidence, MaskedScores, Method, RawMaps
from cam_core.methods.combination import positive_sum
from cam_core.registration import Registration, cells_on_grid

REFERENCE = (
    "Wang H et al. Score-CAM: Score-Weighted Visual Explanations for Convolutional Neural Networks. CVPR Workshops 2020"
)

BASELINE = "logit of the model input with every pixel masked out (zero after normalisation)"

MICRO_BATCH = 16
"""Masked inputs per pass: bounds the memory, whatever the number of channels and findings."""


def delta(evidence: Evidence) -> RawMaps:
    """``alpha_k = Y_c(X * U(A_k)) - Y_c(baseline)``, ``L_c = ReLU(sum_k alpha_k * A_k)``, with U as above.

    The difference itself is the weight, so a channel that speaks against the finding counts against it. This is the
    paper's "channel-wise increase of confidence" (definition 1) without the softmax that its algorithm adds.
    """
    masked = evidence.masked_scores()
    gains = masked.scores.astype(np.float64) - masked.baseline
    return _maps(evidence, np.where(np.isnan(gains), 0.0, gains), masked)


def paper(evidence: Evidence) -> RawMaps:
    """``alpha = softmax_k(Y_c(X * U(A_k)) - Y_c(baseline))``, ``L_c = ReLU(sum_k alpha_k * A_k)``.

    Wang et al. 2020, algorithm 1: the softmax runs over the channels that make a mask. Subtracting the baseline has no
    effect inside it, all weights are positive, and how specific they are depends on the scale of the logits.
    """
    masked = evidence.masked_scores()
    gains = masked.scores.astype(np.float64) - masked.baseline
    powers = np.where(np.isnan(gains), 0.0, np.exp(gains - np.nanmax(gains, axis=0, keepdims=True)))
    return _maps(evidence, powers / powers.sum(axis=0, keepdims=True), masked)


def _maps(evidence: Evidence, weights: NDArray[np.float64], masked: MaskedScores) -> RawMaps:
    """Maps from channel weights (Ch, K)."""
    values = np.stack([positive_sum(weights[:, label], evidence.activations) for label in evidence.labels])
    return RawMaps(values=values, baseline=masked.baseline_text)


def masked_scores(
    classifier: Classifier, batch: NDArray[np.float32], activations: NDArray[np.float32], registration: Registration
) -> MaskedScores:
    """Run the masked passes of one image, for all labels at once.

    Parameters
    ----------
    classifier : Classifier
    batch : (1, C, H, W) float32
    activations : (Ch, h, w) float32
    registration : Registration
        Where the masks lie.

    Raises
    ------
    ExplanationFailed
        When every plane is constant, so that nothing can be masked, or the model gives scores that are no numbers.
    """
    flat = activations.reshape(len(activations), -1)
    useful = np.flatnonzero(flat.max(axis=1) > flat.min(axis=1))
    if not useful.size:
        raise ExplanationFailed("score-cam", "every feature plane is constant, none makes a mask")
    baseline = classifier.scores(np.zeros_like(batch))[0]
    scores = np.full((len(activations), baseline.size), np.nan, dtype=np.float32)
    for first in range(0, useful.size, MICRO_BATCH):
        channels = useful[first : first + MICRO_BATCH]
        masks = _masks(activations[channels], registration, (batch.shape[2], batch.shape[3]))
        scores[channels] = classifier.scores(batch * masks[:, None])
    if not np.isfinite(scores[useful]).all() or not np.isfinite(baseline).all():
        raise ExplanationFailed("score-cam", "the model's scores of masked inputs are not finite numbers")
    return MaskedScores(scores=scores, baseline=baseline, baseline_text=BASELINE)


def _masks(planes: NDArray[np.float32], registration: Registration, grid: tuple[int, int]) -> NDArray[np.float32]:
    """Planes (n, h, w) as masks (n, H, W), each 0 at its smallest and 1 at its largest value on the grid."""
    spread = cells_on_grid(planes, registration, grid)
    low = spread.min(axis=(1, 2), keepdims=True)
    width = spread.max(axis=(1, 2), keepdims=True) - low
    masks: NDArray[np.float32] = (spread - low) / np.where(width > 0, width, 1)
    return masks


METHODS = tuple(
    Method(
        name="score-cam",
        title="Score-CAM",
        variant=variant,
        family="masking",
        needs=frozenset({Capability.SCORES, Capability.ACTIVATIONS}),
        class_specific=True,
        reference=REFERENCE,
        maps=maps,
    )
    for variant, maps in (("delta", delta), ("paper", paper))
)
