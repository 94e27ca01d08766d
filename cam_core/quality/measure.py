"""What a quality measure is, and one measured figure; computes nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Better = Literal["higher", "lower", "neither"]


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A quality measure as a reader of a report needs to know it.

    Attributes
    ----------
    name : str
        The key in `cam_core.quality.catalogue.MEASURES`.
    title : str
        What people are shown.
    definition : str
        The formula in words or symbols. M is the map, U its positive part over its maximum, p the score, G the mask.
    source : str
        The paper.
    range : (low, high) float
        Values that can occur; infinite where there is no bound.
    better : {"higher", "lower", "neither"}
    undefined : str
        When the figure is NaN.
    """

    name: str
    title: str
    definition: str
    source: str
    range: tuple[float, float]
    better: Better
    undefined: str


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One measured value.

    Attributes
    ----------
    measure : str
        Name of the measure.
    value : float
        NaN when the measure says nothing here.
    reason : str or None
        Why the value is NaN; None when it is a number.
    """

    measure: str
    value: float
    reason: str | None = None

    def __post_init__(self) -> None:
        if math.isnan(self.value) != (self.reason is not None):
            raise ValueError(f"{self.measure}: a figure is either a number or has a reason, not {self}")


def missing(measure: str, reason: str) -> Figure:
    """The figure of a measure that says nothing here."""
    return Figure(measure=measure, value=math.nan, reason=reason)


def of_scores(measure: str, value: float) -> Figure:
    """The figure of a value that was made of a model's scores, which may not be finite."""
    if not math.isfinite(value):
        return missing(measure, "the model gives scores that are not finite numbers")
    return Figure(measure=measure, value=value)
