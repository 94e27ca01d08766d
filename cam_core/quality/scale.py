"""The two scales on which maps are compared, and why a map can't be brought to them; knows no measure."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

NOT_FINITE = "the map has values that are not finite numbers"
NOTHING_POSITIVE = "the map has no positive value"
CONSTANT = "the map is constant"
NO_MASK = "the mask is empty"
FULL_MASK = "the mask covers everything"


def unit(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Positive part of a map over its maximum, 0..1; zero where there is nothing positive."""
    positive = np.maximum(np.asarray(values, dtype=np.float64), 0.0)
    peak = positive.max(initial=0.0)
    return positive / peak if peak > 0 else positive


def stretched(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """A map from its minimum, 0, to its maximum, 1; zero where it is constant."""
    wide = np.asarray(values, dtype=np.float64)
    low, high = wide.min(), wide.max()
    return (wide - low) / (high - low) if high > low else np.zeros_like(wide)


def why_not_positive(values: NDArray[np.floating]) -> str | None:
    """Why a map has no positive part to be measured, or None."""
    if not np.isfinite(values).all():
        return NOT_FINITE
    return None if values.size and values.max() > 0 else NOTHING_POSITIVE


def why_not_ranked(*maps: NDArray[np.floating]) -> str | None:
    """Why the cells of these maps can't be put in order, or None."""
    for values in maps:
        if not np.isfinite(values).all():
            return NOT_FINITE
        if not values.size or values.min() == values.max():
            return CONSTANT
    return None
