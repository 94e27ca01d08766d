"""The named ways from raw map values to 0..1, and which maps share one; knows no colours.

A map on its own scale looks the same whether its evidence is strong or faint. Maps that are to be compared, of several
images of a study or of studies over the years, need one scale for all of them, and a reader has to be told which.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cam_core.saliency import SaliencyMap

Kind = Literal["per-map", "shared", "fixed"]


@dataclass(frozen=True, kw_only=True)
class Normalisation:
    """A scale for raw values: `low` becomes 0 and `high` becomes 1.

    Attributes
    ----------
    kind : ``per-map``, ``shared`` or ``fixed``
        From 0 to the map's own maximum, from 0 to the largest maximum of several maps, or chosen.
    low, high : float, the maps' own scale
        Equal only when there is nothing to show: then everything becomes 0.
    unit : str
        Unit of the raw values in words; empty when not told.
    method : str
        Name of the only maps that the scale is for (`SaliencyMap.name`); empty when it is for any.
    maps : int
        How many maps share the scale.
    over : str
        What they are the maps of, for people: ``this study``.
    """

    kind: Kind
    low: float
    high: float
    unit: str = ""
    method: str = ""
    maps: int = 1
    over: str = ""

    def __post_init__(self) -> None:
        if not (np.isfinite(self.low) and np.isfinite(self.high) and self.high >= self.low):
            raise ValueError(f"a scale can't go from {self.low} to {self.high}")

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to show on this scale."""
        return self.high <= self.low


def per_map(values: NDArray[np.float32], *, unit: str = "", method: str = "") -> Normalisation:
    """From 0 to the largest finite value; empty when no value is positive."""
    peak = float(np.max(values, initial=0.0, where=np.isfinite(values)))
    return Normalisation(kind="per-map", low=0.0, high=peak, unit=unit, method=method)


def shared(maps: Sequence[SaliencyMap], *, over: str = "this study") -> Normalisation:
    """From 0 to the largest value on the image of any of the maps, so that their colours can be compared.

    Parameters
    ----------
    maps : sequence of SaliencyMap, all of one method
        For one finding or several, of one image or several, of one study or a series of studies of the same model.
        Those that are blank count as maps but not for the range.
    over : str
        What they are the maps of, for people.

    Raises
    ------
    ValueError
        Without maps, or when they are of several methods: their values have nothing in common.
    """
    names = sorted({one.name for one in maps})
    if len(names) != 1:
        raise ValueError(f"maps of one method can share a scale, these are of {', '.join(names) or 'none'}")
    peak = max((one.visible_range[1] for one in maps if not one.is_blank), default=0.0)
    return Normalisation(
        kind="shared", low=0.0, high=peak, unit=maps[0].unit, method=names[0], maps=len(maps), over=over
    )


def shared_by_method(maps: Sequence[SaliencyMap], *, over: str = "this study") -> tuple[Normalisation, ...]:
    """One `shared` scale for the maps of each method, in the order in which the methods come first."""
    names = dict.fromkeys(one.name for one in maps)
    return tuple(shared([one for one in maps if one.name == name], over=over) for name in names)


def fixed(low: float, high: float, *, unit: str = "", method: str = "") -> Normalisation:
    """A chosen range of raw values; what lies beyond is clipped."""
    if not high > low:
        raise ValueError(f"the upper end {high} of a range must be above the lower end {low}")
    return Normalisation(kind="fixed", low=low, high=high, unit=unit, method=method)


def scale_of(saliency: SaliencyMap, given: Sequence[Normalisation] = ()) -> Normalisation:
    """The scale on which a map is shown: the first of those given that is for it, else its own.

    A map that is blank has an empty scale whatever is given: nothing is stretched to look like something.
    """
    if not saliency.is_blank:
        for one in given:
            if one.method in ("", saliency.name):
                return one
    peak = 0.0 if saliency.is_blank else saliency.visible_range[1]
    return Normalisation(kind="per-map", low=0.0, high=peak, unit=saliency.unit, method=saliency.name)


def normalise(values: NDArray[np.float32], scale: Normalisation) -> NDArray[np.float32]:
    """Values on a scale, 0..1; all 0 when the scale is empty."""
    if scale.is_empty:
        return np.zeros(values.shape, dtype=np.float32)
    return by_range(values, scale.low, scale.high)


def by_map_maximum(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Positive part divided by the largest value: 0 no evidence .. 1 most of this map.  Not comparable between maps.

    A map without positive finite values gives zeros, never a stretched nothing.
    """
    positive: NDArray[np.float32] = np.where(np.isfinite(values), np.maximum(values, 0), 0).astype(np.float32)
    peak = positive.max(initial=0.0)
    return positive / peak if peak > 0 else positive


def by_range(values: NDArray[np.float32], low: float, high: float) -> NDArray[np.float32]:
    """Values between `low` (0) and `high` (1), clipped; with one range for several maps they can be compared."""
    if not high > low:
        raise ValueError(f"the upper end {high} of a range must be above the lower end {low}")
    finite = np.where(np.isfinite(values), values, low)
    scaled: NDArray[np.float32] = np.clip((finite - low) / (high - low), 0.0, 1.0).astype(np.float32)
    return scaled
