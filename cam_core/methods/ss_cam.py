"""SS-CAM: Score-CAM with noise on the masks, so that a weight does not hang on one mask's exact form."""

from __future__ import annotations

from cam_core.classifier import Capability
from cam_core.method import Evidence, Method, RawMaps, Scale
from cam_core.methods.masking import BASELINE, NoisyMasks, channel_maps, channel_softmax, masked_scores

MASKS = NoisyMasks(samples=10, deviation=2.0)
"""Ten draws for each mask, so ten times the passes of Score-CAM. torchcam draws 35; the standard deviation of 2 is the
paper's and torchcam's."""


def ss_cam(evidence: Evidence) -> RawMaps:
    """``alpha = softmax_k(mean_i Y_c(X * (U(A_k) + e_i)) - Y_c(baseline))``, ``L_c = ReLU(sum_k alpha_k * A_k)``.

    Source: Wang, Naidu et al. 2020, smoothing of the feature maps (the other form of the paper adds the noise to the
    input). ``e_i`` is normal noise at each pixel, U(A_k) the mask of channel k as Score-CAM makes it; the number of
    draws, their deviation and the seed stand in `MASKS`. As in Score-CAM's paper form, the softmax makes the baseline
    without effect.
    """
    scores = masked_scores(evidence, MASKS, MASKS.samples).scores
    return RawMaps(values=channel_maps(evidence, channel_softmax(scores)), baseline=BASELINE)


METHODS = (
    Method(
        name="ss-cam",
        title="SS-CAM",
        family="masking",
        needs=frozenset({Capability.SCORES, Capability.ACTIVATIONS}),
        scale=Scale(signed=False, unit="activation, as a weighted mean of channels"),
        reference="Wang H, Naidu R et al. SS-CAM: Smoothed Score-CAM for Sharper Visual Feature Localization. "
        "arXiv:2006.14255, 2020",
        maps=ss_cam,
        asks=(MASKS,),
    ),
)
