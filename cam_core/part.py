"""The connected parts of a placed map above a threshold, in two and three dimensions; knows no images, no outlines."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cam_core.threshold import Threshold, level_of

LEAST_SHARE = 0.005
"""A connected part with less of the map's evidence is a speck: counted, but no region."""

SHARE_DIGITS = 9
"""Shares that agree in so many decimals are equal: the part that comes first in reading order goes first."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """One connected part.

    Attributes
    ----------
    window : tuple of slice
        Smallest box around it.
    mask : bool, the window's size
        Where the part is.
    peak : tuple of int
        Index of its largest value; of several equal ones the first in reading order.
    peak_value, mean_value : float, the map's own scale
    share : float, 0..1
        Its share of the map's positive mass.
    """

    window: tuple[slice, ...]
    mask: NDArray[np.bool_]
    peak: tuple[int, ...]
    peak_value: float
    mean_value: float
    share: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Parts:
    """The parts of a map.

    Attributes
    ----------
    found : tuple of Part
        The one with most evidence first.
    of : int
        How many there are without specks, which may be more than `found`.
    specks : int
        How many were too small to count.
    level : float, the map's own scale
        What bounds them.
    fraction : float, 0..1
        The level as a share of the map's maximum.
    """

    found: tuple[Part, ...]
    of: int
    specks: int
    level: float
    fraction: float


def parts_over(values: NDArray[np.float32], threshold: Threshold, limit: int) -> Parts:
    """The connected parts of `values` that reach a threshold; neighbours across edges and corners are connected.

    Parameters
    ----------
    values : (h, w) or (d, h, w) float32
        Placed map with at least one positive value.
    threshold : Threshold
    limit : int
        Tell at most so many.
    """
    level = level_of(threshold, values)
    high = values >= level
    labelled, _ = ndimage.label(high, np.ones((3,) * values.ndim))
    sums = np.bincount(labelled[high], weights=values[high])[1:]
    shares: NDArray[np.float64] = sums / float(np.sum(values, dtype=np.float64, where=values > 0))
    windows = ndimage.find_objects(labelled)
    order = sorted(range(len(windows)), key=lambda i: (-round(float(shares[i]), SHARE_DIGITS), _start(windows[i])))
    kept = [index for index in order if shares[index] >= LEAST_SHARE] or order[:1]
    return Parts(
        found=tuple(_part(values, labelled, index + 1, windows[index], float(shares[index])) for index in kept[:limit]),
        of=len(kept),
        specks=len(order) - len(kept),
        level=level,
        fraction=_fraction(threshold, level, float(values.max())),
    )


def _fraction(threshold: Threshold, level: float, peak: float) -> float:
    if threshold.kind == "share" and threshold.value is not None:
        return threshold.value
    return level / peak


def _start(window: tuple[slice, ...]) -> tuple[int, ...]:
    return tuple(int(one.start) for one in window)


def _part(
    values: NDArray[np.float32], labelled: NDArray[np.int32], label: int, window: tuple[slice, ...], share: float
) -> Part:
    mask = labelled[window] == label
    inside = np.where(mask, values[window], -np.inf)
    peak = np.unravel_index(int(np.argmax(inside)), mask.shape)
    return Part(
        window=window,
        mask=mask,
        peak=tuple(int(one) + first for one, first in zip(peak, _start(window), strict=True)),
        peak_value=float(inside[peak]),
        mean_value=float(values[window][mask].mean(dtype=np.float64)),
        share=min(float(share), 1.0),
    )
