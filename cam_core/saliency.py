"""Raw saliency maps, what they say and their place on the image; knows no scales, thresholds or colours."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from cam_core.image import Fit
from cam_core.registration import Registration, cell_positions
from cam_core.resample import sample_linear

FLATNESS = 1e-5
"""A map whose values differ by no more than this part of the largest is the same everywhere: the rest is rounding."""

BLOCK_VOXELS = 1 << 22
"""A volume is placed in blocks of about so many voxels, so that little more memory is needed than for the result."""


class MapCondition(Enum):
    """Whether a map says something; the value is what people are told when it doesn't."""

    POSITIVE_EVIDENCE = ""
    NO_POSITIVE_EVIDENCE = "no positive evidence for this finding in this map"
    NO_CLASS_EVIDENCE = "the score of this finding does not depend on what this method looks at"
    FLAT = "the map is the same everywhere, no place stands out"
    OUTSIDE = "all positive evidence lies in the border that was added around the image, none on it"
    NOT_FINITE = "the map holds values that are not finite numbers"


@dataclass(frozen=True, kw_only=True, eq=False)
class SaliencyMap:
    """One method's map for one finding, as computed.

    Attributes
    ----------
    values : (h, w) or (d, h, w) float32, unitless
        Raw values on the feature grid. Their scale is the method's own; they are never normalised here.
    method, variant, title : str
        Canonical name (``grad-cam``), variant (may be empty) and name for people (``Grad-CAM``).
    label : str
        Name of the explained label.
    fit : Fit
        From the image to the model's grid.
    registration : Registration
        From the model's grid to the cells.
    baseline : str or None
        What a perturbing method compared with.
    unit : str
        Unit of the raw values in words; empty when not told.
    class_evidence : bool
        Whether the score of the label depends at all on what the method looked at.
    """

    values: NDArray[np.float32]
    method: str
    variant: str
    title: str
    label: str
    fit: Fit
    registration: Registration
    baseline: str | None = None
    unit: str = ""
    class_evidence: bool = True

    @cached_property
    def condition(self) -> MapCondition:
        """Whether the map says something on this image, and if not, why."""
        if not np.isfinite(self.values).all():
            return MapCondition.NOT_FINITE
        if not self.class_evidence:
            return MapCondition.NO_CLASS_EVIDENCE
        if not (self.values > 0).any():
            return MapCondition.NO_POSITIVE_EVIDENCE
        low, high = self.visible_range
        if high <= 0:
            return MapCondition.OUTSIDE
        return MapCondition.FLAT if high - low <= FLATNESS * high else MapCondition.POSITIVE_EVIDENCE

    @property
    def is_blank(self) -> bool:
        """Whether there is nothing to show; `condition` says why."""
        return self.condition is not MapCondition.POSITIVE_EVIDENCE

    @cached_property
    def visible_range(self) -> tuple[float, float]:
        """Least and largest raw value on the image itself, without the border that `fit` may have added.

        Between cells the map is linear along each axis, so its extremes over a box lie where the lines through the
        cells' centres and the box's faces cross: no pixel has to be looked at.
        """
        ends = cell_positions(self.registration, self.fit, self.fit.source_shape)
        corners = sample_linear(self.values, [_crossings(one[0], one[-1]) for one in ends])
        return float(corners.min()), float(corners.max())

    @property
    def name(self) -> str:
        """Method with its variant, as methods are asked for: ``score-cam:delta``."""
        return f"{self.method}:{self.variant}" if self.variant else self.method

    @property
    def full_title(self) -> str:
        """Title with its variant, for people: ``Score-CAM (delta)``."""
        return f"{self.title} ({self.variant})" if self.variant else self.title

    def on_image(self) -> NDArray[np.float32]:
        """The raw values on the image's own pixels, (H, W) or (D, H, W) float32."""
        return place(self)


def _crossings(first: float, last: float) -> NDArray[np.float64]:
    """Both ends of a stretch of an axis and the cells between them, cell index."""
    return np.array([first, *np.arange(np.ceil(first), np.floor(last) + 1), last])


def place(saliency: SaliencyMap, shape: tuple[int, ...] | None = None) -> NDArray[np.float32]:
    """Raw values where they belong on the image: linear between the true centres of the cells, edges held.

    Parameters
    ----------
    saliency : SaliencyMap
    shape : tuple of int, optional
        Size of the result, which always covers the whole image; the image's own size when not given.

    Returns
    -------
    float32, that size, the map's own scale
    """
    shape = shape or saliency.fit.source_shape
    first, *rest = cell_positions(saliency.registration, saliency.fit, shape)
    placed = np.empty(shape, dtype=np.float32)
    step = max(BLOCK_VOXELS // int(np.prod(shape[1:])), 1)
    for start in range(0, shape[0], step):
        placed[start : start + step] = sample_linear(saliency.values, [first[start : start + step], *rest])
    return placed
