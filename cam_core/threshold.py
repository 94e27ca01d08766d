"""From where on a map counts as a region: a share of its maximum, Otsu's threshold or a value; knows no regions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from skimage.filters import threshold_otsu

ThresholdKind = Literal["share", "otsu", "fixed"]


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """How the level that bounds regions is chosen.

    Attributes
    ----------
    kind : ``share``, ``otsu`` or ``fixed``
        A share of the map's maximum; the level that parts the map's positive values best into high and low ones
        (Otsu, IEEE Trans. Syst. Man Cybern. 9 (1979) 62); or a raw value.
    value : float or None
        The share (0..1 exclusive) or the raw value (above 0); None for Otsu's.
    """

    kind: ThresholdKind
    value: float | None = None

    def __post_init__(self) -> None:
        value = self.value
        if self.kind == "otsu" and value is not None:
            raise ValueError(f"Otsu's threshold is found in the map, it can't be {value}")
        if self.kind == "share" and not (value is not None and 0 < value < 1):
            raise ValueError(f"threshold share {value} is not between 0 and 1")
        if self.kind == "fixed" and not (value is not None and 0 < value < np.inf):
            raise ValueError(f"threshold {value} is not a positive number")


OTSU = Threshold(kind="otsu")


def share_of_maximum(share: float) -> Threshold:
    """Where the map is at least this share (0..1 exclusive) of its maximum."""
    return Threshold(kind="share", value=share)


def fixed_level(value: float) -> Threshold:
    """Where the map is at least this raw value."""
    return Threshold(kind="fixed", value=value)


def level_of(threshold: Threshold, values: NDArray[np.float32]) -> float:
    """The raw value that a threshold means in a map, a float32 number as the map's own values are.

    Parameters
    ----------
    threshold : Threshold
    values : float32, any shape
        Placed map with at least one positive value.
    """
    return float(max(np.float32(_level(threshold, values)), np.nextafter(np.float32(0), np.float32(1))))


def _level(threshold: Threshold, values: NDArray[np.float32]) -> float:
    if threshold.kind == "fixed" and threshold.value is not None:
        return threshold.value
    peak = float(values.max())
    if threshold.value is not None:
        return peak * threshold.value
    shares = values[values > 0].astype(np.float64) / peak  # so that the histogram's width can be told from rounding
    return peak * float(threshold_otsu(shares))  # type: ignore[no-untyped-call]
