"""Where a map points against a mask that is known; knows neither the model nor how the mask was drawn.

The measures are those of the CheXlocalize benchmark (Saporta et al., Nat Mach Intell 2022) and of the trustworthiness
study of Arun et al. (Radiology: AI 2021). Both take the map as placed on the image. CheXlocalize takes the mask as
empty where the probability is under the finding's cut-off: that is for the caller, who knows the probability.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.filters import threshold_otsu

from cam_core.quality.measure import Figure, missing
from cam_core.quality.scale import FULL_MASK, NO_MASK, NOT_FINITE, stretched, unit, why_not_positive, why_not_ranked

Threshold = Literal["otsu"] | float
"""By Otsu's method, or a fixed value on the map stretched to 0..1 (tuned for each finding in CheXlocalize)."""


def area_over(values: NDArray[np.floating], threshold: Threshold = "otsu") -> NDArray[np.bool_]:
    """The cells over the threshold, on the map stretched to 0..1; none where the map is constant."""
    scaled = stretched(values)
    if not scaled.any():
        return np.zeros(scaled.shape, dtype=np.bool_)
    level = float(threshold_otsu(scaled)) if threshold == "otsu" else float(threshold)  # type: ignore[no-untyped-call]
    area: NDArray[np.bool_] = scaled > level
    return area


def overlap(
    values: NDArray[np.floating], mask: NDArray[np.bool_], threshold: Threshold = "otsu"
) -> tuple[Figure, Figure]:
    """Intersection over union ``|A and G| / |A or G|`` and Dice ``2 |A and G| / (|A| + |G|)`` of `area_over` and mask.

    Parameters
    ----------
    values : (*cells) float, raw map
    mask : (*cells) bool
    threshold : {"otsu"} or float, 0..1
    """
    reason = _why_not_judged(values, mask) or why_not_ranked(values)
    if reason:
        return missing("iou", reason), missing("dice", reason)
    area = area_over(values, threshold)
    both, either = int((area & mask).sum()), int((area | mask).sum())
    return Figure(measure="iou", value=both / either), Figure(measure="dice", value=2 * both / (both + either))


def pointing(
    values: NDArray[np.floating],
    mask: NDArray[np.bool_],
    tolerance: float = 0.0,
    spacing: tuple[float, ...] | None = None,
) -> Figure:
    """Whether the map's maximum lies in the mask or at most `tolerance` beside it (Zhang et al., IJCV 2018).

    Where several cells share the maximum, the share of them that hit.

    Parameters
    ----------
    tolerance : float, cell, or the unit of `spacing`
    spacing : tuple of float, optional
        Distance of neighbouring cells on each axis.
    """
    reason = _why_not_judged(values, mask) or why_not_positive(values)
    if reason:
        return missing("pointing", reason)
    near = mask if tolerance <= 0 else ndimage.distance_transform_edt(~mask, sampling=spacing) <= tolerance
    return Figure(measure="pointing", value=float(near[values == values.max()].mean()))


def energy_inside(values: NDArray[np.floating], mask: NDArray[np.bool_]) -> Figure:
    """Part of the positive map that lies in the mask: ``sum(U in G) / sum(U)`` (Wang et al., CVPR Workshops 2020)."""
    reason = _why_not_judged(values, mask) or why_not_positive(values)
    if reason:
        return missing("energy-inside", reason)
    return Figure(measure="energy-inside", value=share_inside(values, mask))


def share_inside(values: NDArray[np.floating], mask: NDArray[np.bool_]) -> float:
    """Part of the positive map in a mask, which may be empty; the map must have a positive value."""
    positive = unit(values)
    return min(float(positive[mask].sum() / positive.sum()), 1.0)


def auprc(values: NDArray[np.floating], mask: NDArray[np.bool_]) -> Figure:
    """Area under the precision-recall curve of the cells, as average precision (Arun et al. 2021).

    ``sum_t (R_t - R_{t-1}) P_t`` over the map's distinct values from the highest down. Chance is the mask's share.
    """
    reason = _why_not_judged(values, mask) or why_not_ranked(values)
    if reason:
        return missing("auprc", reason)
    ordered = np.argsort(-values, axis=None, kind="stable")
    ranked, inside = values.ravel()[ordered], mask.ravel()[ordered]
    last = np.append(np.flatnonzero(np.diff(ranked)), ranked.size - 1)
    hits = np.cumsum(inside)[last]
    precision, recall = hits / (last + 1), hits / hits[-1]
    return Figure(measure="auprc", value=min(float((np.diff(recall, prepend=0.0) * precision).sum()), 1.0))


def rank_accuracy(values: NDArray[np.floating], mask: NDArray[np.bool_]) -> Figure:
    """Relevance rank accuracy ``|top-K and G| / K`` with K the mask's size (Arras et al., Inf Fusion 2022).

    Cells that tie at the K-th place count with the share of them that is in the mask, the mean over every order.
    """
    reason = _why_not_judged(values, mask) or why_not_ranked(values)
    if reason:
        return missing("rank-accuracy", reason)
    count = int(mask.sum())
    level = np.partition(values.ravel(), values.size - count)[values.size - count]
    above, at = values > level, values == level
    left = count - int(above.sum())
    hits = float((mask & above).sum()) + left * float((mask & at).sum()) / float(at.sum())
    return Figure(measure="rank-accuracy", value=min(hits / count, 1.0))


def _why_not_judged(values: NDArray[np.floating], mask: NDArray[np.bool_]) -> str | None:
    if values.shape != mask.shape:
        raise ValueError(f"the map has shape {values.shape}, the mask {mask.shape}")
    if not np.isfinite(values).all():
        return NOT_FINITE
    if mask.all():
        return FULL_MASK
    return None if mask.any() else NO_MASK
