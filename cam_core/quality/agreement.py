"""How alike maps are: of two methods, of two labels, of a family of methods; knows neither masks nor models."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata
from skimage.metrics import structural_similarity

from cam_core.quality.measure import Figure, missing
from cam_core.quality.scale import NOT_FINITE, stretched, unit, why_not_positive, why_not_ranked

WINDOW = 7
"""Cells on a side of SSIM's window, as in Wang et al. 2004 with uniform weights; less where the map is smaller."""

TOP_SHARE = 0.1
"""Part of the cells that counts as a map's top area."""


def spearman(first: NDArray[np.floating], second: NDArray[np.floating]) -> Figure:
    """Rank correlation of two maps over their cells, ties with their mean rank (Spearman 1904).

    Parameters
    ----------
    first, second : (*cells) float, raw maps on one grid
    """
    reason = _why_not_compared(first, second)
    if reason:
        return missing("spearman", reason)
    return Figure(measure="spearman", value=_correlation(rankdata(first), rankdata(second)))


def ssim(first: NDArray[np.floating], second: NDArray[np.floating]) -> Figure:
    """Mean structural similarity of two maps, each stretched to 0..1 (Wang et al., IEEE TIP 2004).

    In any number of dimensions, with a window of `WINDOW` cells on a side, or the largest odd number that fits.
    """
    reason = _why_not_compared(first, second)
    window = min(WINDOW, _odd(min(first.shape)))
    if not reason and window < 3:
        reason = f"the map is {min(first.shape)} cells across, SSIM needs 3"
    if reason:
        return missing("ssim", reason)
    found = structural_similarity(  # type: ignore[no-untyped-call]
        stretched(first), stretched(second), win_size=window, data_range=1.0
    )
    return Figure(measure="ssim", value=min(max(float(found), -1.0), 1.0))


def _odd(size: int) -> int:
    return size if size % 2 else size - 1


def top_area(values: NDArray[np.floating], share: float = TOP_SHARE) -> NDArray[np.bool_]:
    """The cells with the highest values, `share` of all, without those at the map's minimum.

    Cells that tie with the last one are in, so that the order of storage decides nothing.
    """
    count = max(round(share * values.size), 1)
    level = np.partition(values.ravel(), values.size - count)[values.size - count]
    area: NDArray[np.bool_] = (values >= level) & (values > values.min())
    return area


def top_iou(first: NDArray[np.floating], second: NDArray[np.floating], share: float = TOP_SHARE) -> Figure:
    """Intersection over union of the two maps' `top_area`."""
    reason = _why_not_compared(first, second)
    if reason:
        return missing("top-iou", reason)
    one, other = top_area(first, share), top_area(second, share)
    return Figure(measure="top-iou", value=float((one & other).sum() / (one | other).sum()))


def class_sensitivity(maps: NDArray[np.floating]) -> Figure:
    """Mean absolute correlation of the maps of different labels: near 1 the label hardly matters.

    The correlation is Pearson's, over cells and over all pairs of labels whose maps vary; Adebayo et al. 2018 and
    Sixt et al. 2020 ask the same of the random logit.

    Parameters
    ----------
    maps : (K, *cells) float, raw maps of one image and one method
    """
    if not np.isfinite(maps).all():
        return missing("class-sensitivity", NOT_FINITE)
    usable = [np.ravel(one).astype(np.float64) for one in maps if why_not_ranked(one) is None]
    if len(usable) < 2:
        return missing("class-sensitivity", "fewer than two labels have a map that varies")
    found = [abs(_correlation(one, other)) for one, other in combinations(usable, 2)]
    return Figure(measure="class-sensitivity", value=float(np.mean(found)))


def disagreement_map(maps: NDArray[np.floating]) -> NDArray[np.float32]:
    """Standard deviation over independent families at each cell, every map as positive part over its maximum.

    Parameters
    ----------
    maps : (F, *cells) float, raw maps, one for each independent family

    Returns
    -------
    (*cells) float32, 0..0.5
    """
    return np.asarray(np.std([unit(one) for one in maps], axis=0), dtype=np.float32)


def disagreement(maps: NDArray[np.floating]) -> Figure:
    """Mean of `disagreement_map` over the cells where any family's map reaches half its maximum."""
    usable = [one for one in maps if why_not_positive(one) is None]
    if len(usable) < 2:
        return missing("disagreement", "fewer than two families have a map with a positive value")
    seen = np.any([unit(one) >= 0.5 for one in usable], axis=0)
    return Figure(measure="disagreement", value=float(disagreement_map(np.stack(usable))[seen].mean(dtype=np.float64)))


def _why_not_compared(first: NDArray[np.floating], second: NDArray[np.floating]) -> str | None:
    if first.shape != second.shape:
        raise ValueError(f"maps of shapes {first.shape} and {second.shape} can't be compared cell by cell")
    return why_not_ranked(first, second)


def _correlation(first: NDArray[np.floating], second: NDArray[np.floating]) -> float:
    """Pearson's r of two arrays that vary, computed in double precision."""
    one, other = np.ravel(first).astype(np.float64), np.ravel(second).astype(np.float64)
    one, other = one - one.mean(), other - other.mean()
    r = float((one / np.linalg.norm(one)) @ (other / np.linalg.norm(other)))
    return min(max(r, -1.0), 1.0)
