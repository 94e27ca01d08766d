"""How concentrated a map is, and the scores that join that to what the model makes of it; runs no model.

A concentrated map is easier to read. It is not for that reason right: read these beside the faithfulness figures.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cam_core.quality.measure import Figure, missing
from cam_core.quality.scale import unit, why_not_positive, why_not_ranked


def complexity(values: NDArray[np.floating]) -> Figure:
    """Mean of the map on the scale 0..1: ``sum(U) / n`` (Poppi et al., CVPR Workshops 2021).

    Parameters
    ----------
    values : (*cells) float, raw map
    """
    reason = why_not_positive(values)
    if reason:
        return missing("complexity", reason)
    return Figure(measure="complexity", value=float(unit(values).mean()))


def coherency(values: NDArray[np.floating], again: NDArray[np.floating]) -> Figure:
    """Whether the map of the input seen through its map is the same map: ``(1 + r(M, M')) / 2`` (Poppi et al., 2021).

    Parameters
    ----------
    values, again : (*cells) float, raw maps
        `again` is the map of the input multiplied with the first map on the scale 0..1.
    """
    reason = why_not_ranked(values, again)
    if reason:
        return missing("coherency", reason)
    r = float(np.corrcoef(np.ravel(values).astype(np.float64), np.ravel(again).astype(np.float64))[0, 1])
    return Figure(measure="coherency", value=(1 + min(max(r, -1.0), 1.0)) / 2)


def adcc(coherent: Figure, complex_: Figure, drop: Figure) -> Figure:
    """Harmonic mean of coherency, 1 - complexity and 1 - average drop (Poppi et al., CVPR Workshops 2021)."""
    return _harmonic("adcc", (coherent, coherent.value), (complex_, 1 - complex_.value), (drop, 1 - drop.value))


def arcc(coherent: Figure, complex_: Figure, road: Figure) -> Figure:
    """Harmonic mean of coherency, 1 - complexity and ROAD combined, doubled and cut off to 0..1.

    As in pytorch-grad-cam's ``metrics/arcc.py``, which names arXiv:2605.14641.
    """
    faithful = min(max(2 * road.value, 0.0), 1.0) if road.reason is None else road.value
    return _harmonic("arcc", (coherent, coherent.value), (complex_, 1 - complex_.value), (road, faithful))


def _harmonic(name: str, *parts: tuple[Figure, float]) -> Figure:
    """Harmonic mean of three shares; 0 when one of them is 0, which is its limit."""
    for figure, _ in parts:
        if figure.reason:
            return missing(name, f"{figure.measure}: {figure.reason}")
    shares = [share for _, share in parts]
    return Figure(measure=name, value=len(shares) / sum(1 / one for one in shares) if min(shares) > 0 else 0.0)


def gini(values: NDArray[np.floating]) -> Figure:
    """Gini index of the positive part (Hurley and Rickard 2009; Chalasani et al., ICML 2020).

    ``1 - 2 * sum_i U_(i) / sum(U) * (n - i + 1/2) / n`` with the values in ascending order, i from 1: 0 for an even
    map, 1 - 1/n where one cell has everything.
    """
    reason = why_not_positive(values)
    if reason:
        return missing("gini", reason)
    ordered = np.sort(unit(values).ravel())
    n = ordered.size
    weights = (n - np.arange(1, n + 1) + 0.5) / n
    return Figure(measure="gini", value=max(float(1 - 2 * (ordered * weights).sum() / ordered.sum()), 0.0))


def entropy(values: NDArray[np.floating]) -> Figure:
    """Shannon entropy of the positive part as a distribution over the cells, divided by log n (Bhatt et al. 2020)."""
    reason = why_not_positive(values) or ("the map has one cell" if values.size < 2 else None)
    if reason:
        return missing("entropy", reason)
    positive = unit(values).ravel()
    shares = positive[positive > 0] / positive.sum()
    found = float(-(shares * np.log(shares)).sum() / np.log(values.size))
    return Figure(measure="entropy", value=min(max(found, 0.0), 1.0))


def effective_area(values: NDArray[np.floating], share: float = 0.5) -> Figure:
    """The smallest part of the cells that together hold `share` of the positive map."""
    reason = why_not_positive(values)
    if reason:
        return missing("effective-area", reason)
    ordered = np.sort(unit(values).ravel())[::-1]
    held = np.cumsum(ordered)
    # the first cell at which the sum is reached; the small allowance is for the rounding of the sum itself
    count = int(np.searchsorted(held, share * held[-1] * (1 - 1e-12))) + 1
    return Figure(measure="effective-area", value=count / ordered.size)
