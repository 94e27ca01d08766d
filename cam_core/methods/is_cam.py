"""IS-CAM: Score-CAM with the scores summed up along growing masks."""

from __future__ import annotations

from itertools import accumulate

from cam_core.classifier import Capability
from cam_core.method import Evidence, Method, RawMaps, Scale
from cam_core.methods.masking import BASELINE, ScaledMasks, channel_maps, channel_softmax, masked_scores

STEPS = 10
"""N of the formula, the paper's; N - 1 times the passes of Score-CAM."""

MASKS = ScaledMasks(scales=tuple(accumulate(step / STEPS for step in range(1, STEPS))))
"""1/N, 3/N, 6/N, ..., (N - 1)/2: the sums over j < i of j/N, but for the first, which is 0."""


def is_cam(evidence: Evidence) -> RawMaps:
    """``alpha = softmax_k(1/N * sum_{i=1..N} (Y_c(M_i) - Y_c(baseline)))``, ``L_c = ReLU(sum_k alpha_k * A_k)``.

    ``M_i = sum_{j=0..i-1} (j/N) * X * U(A_k)``: the masks add up, so that they reach far beyond 1. Source: Naidu et al.
    2020. M_1 is the baseline itself: its difference is 0 and costs no pass. torchcam's code sums j from 1 to i, one
    step further, although its documentation has the formula above. A plain integral over masks of scale i/N is
    neither.
    """
    masked = masked_scores(evidence, MASKS, len(MASKS.scales))
    gains = (masked.scores - masked.baseline) * (len(MASKS.scales) / STEPS)
    return RawMaps(values=channel_maps(evidence, channel_softmax(gains)), baseline=BASELINE)


METHODS = (
    Method(
        name="is-cam",
        title="IS-CAM",
        family="masking",
        needs=frozenset({Capability.SCORES, Capability.ACTIVATIONS}),
        scale=Scale(signed=False, unit="activation, as a weighted mean of channels"),
        reference="Naidu R et al. IS-CAM: Integrated Score-CAM for axiomatic-based explanations. "
        "arXiv:2010.03023, 2020",
        maps=is_cam,
        asks=(MASKS,),
    ),
)
