"""Raw saliency maps, their named normalisations, their place on the image and their regions; knows no colours."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

import numpy as np
from numpy.typing import NDArray
from skimage.measure import approximate_polygon, find_contours, label, regionprops
from skimage.measure._regionprops import RegionProperties

from cam_core.image import Fit
from cam_core.registration import Registration, cells_on_picture

WORKING_SIDE = 512
"""Longest side of the grid on which regions are found, whatever the image's size, pixel."""

SIMPLIFICATION = 0.15
"""Largest distance between a contour and its simplified form, working pixel."""


LEAST_SHARE = 0.005
"""A connected part with less of the map's evidence is a speck: counted, but no region."""


class MapCondition(Enum):
    """Whether a map says something; the value is what people are told when it doesn't."""

    POSITIVE_EVIDENCE = ""
    NO_POSITIVE_EVIDENCE = "no positive evidence for this finding in this map"
    NO_CLASS_EVIDENCE = "the score of this finding does not depend on what this method looks at"
    FLAT = "the map is the same everywhere: no place stands out"


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
    condition : MapCondition
        Whether the map says something.
    """

    values: NDArray[np.float32]
    method: str
    variant: str
    title: str
    label: str
    fit: Fit
    registration: Registration
    baseline: str | None = None
    condition: MapCondition = MapCondition.POSITIVE_EVIDENCE

    @property
    def is_blank(self) -> bool:
        """Whether there is nothing to show: no positive evidence, the same everywhere, or not a number somewhere."""
        if self.condition is not MapCondition.POSITIVE_EVIDENCE or not np.isfinite(self.values).all():
            return True
        return not bool((self.values > 0).any()) or bool(self.values.min() == self.values.max())

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
    return cells_on_picture(saliency.values, saliency.registration, saliency.fit, shape or saliency.fit.source_shape)


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


@dataclass(frozen=True, kw_only=True, eq=False)
class Region:
    """One connected part of a map above a fraction of its maximum.

    Coordinates are image pixels: x across, y down, the centre of pixel ``i`` at ``i + 0.5``.

    Attributes
    ----------
    box : (x0, y0, x1, y1) int, pixel
        Smallest box of whole pixels; the last two are exclusive.
    contour : (N, 2) float64, pixel
        x and y of a closed line (first point equals last, N >= 4) inside the image.
    area_pixels : float, pixel
    area_mm2 : float or None, mm2
        None when the spacing is unknown.
    peak : (x, y) float, pixel
    peak_value, mean_value : float, the map's own scale
    share : float, 0..1
        Part of the map's positive mass that lies in the region.
    threshold_fraction : float, 0..1
        The fraction of the map's maximum that bounds the region.
    number, of : int
        Which region of how many the map has, from 1 for the one with most evidence.
    specks : int
        Parts of the map over the threshold that are too small to count (`LEAST_SHARE`).
    """

    box: tuple[int, int, int, int]
    contour: NDArray[np.float64]
    area_pixels: float
    area_mm2: float | None
    peak: tuple[float, float]
    peak_value: float
    mean_value: float
    share: float
    threshold_fraction: float = 0.5
    number: int = 1
    of: int = 1
    specks: int = 0


def regions(
    saliency: SaliencyMap,
    *,
    threshold_fraction: float = 0.5,
    spacing_mm: tuple[float, float] | None = None,
    limit: int = 5,
) -> tuple[Region, ...]:
    """The connected regions of a map, the one with most evidence first, without specks.

    Parameters
    ----------
    saliency : SaliencyMap
    threshold_fraction : float, 0..1 exclusive
        A region is where the placed map reaches this fraction of its maximum.
    spacing_mm : (row, column) float or None, mm
        Pixel spacing; without it areas in mm2 are not given.
    limit : int
        At most so many regions; each tells how many there are.
    """
    if not 0 < threshold_fraction < 1:
        raise ValueError(f"threshold fraction {threshold_fraction} is not between 0 and 1")
    if saliency.is_blank:
        return ()
    values = place(saliency, _working_shape(saliency.fit.source_shape))
    peak = float(values.max())
    if peak <= 0:
        return ()
    scale = _Scale(
        fraction=threshold_fraction,
        level=peak * threshold_fraction,
        mass=float(np.maximum(values, 0).sum(dtype=np.float64)),
        image_shape=saliency.fit.source_shape,
        spacing_mm=spacing_mm,
    )
    labelled = label(values >= scale.level, connectivity=2)  # type: ignore[no-untyped-call]
    parts = sorted(regionprops(labelled), key=lambda part: _rank(values, part, scale))  # type: ignore[no-untyped-call]
    kept = [part for part in parts if _share(values, part, scale) >= LEAST_SHARE] or parts[:1]
    found = (_region(values, labelled, part, scale) for part in kept[:limit])
    specks = len(parts) - len(kept)
    return tuple(replace(one, number=number, of=len(kept), specks=specks) for number, one in enumerate(found, 1))


@dataclass(frozen=True, kw_only=True)
class _Scale:
    fraction: float
    level: float
    mass: float
    image_shape: tuple[int, int]
    spacing_mm: tuple[float, float] | None


def _working_shape(image_shape: tuple[int, int]) -> tuple[int, int]:
    factor = WORKING_SIDE / max(image_shape)
    return max(round(image_shape[0] * factor), 1), max(round(image_shape[1] * factor), 1)


def _rank(
    values: NDArray[np.float32], part: RegionProperties, scale: _Scale
) -> tuple[float, tuple[int, int, int, int]]:
    """Order of regions: most evidence first; told before the outline is followed, which takes longest."""
    return -_share(values, part, scale), _box(values, part, scale)


def _share(values: NDArray[np.float32], part: RegionProperties, scale: _Scale) -> float:
    top, left, bottom, right = part.bbox
    return float(values[top:bottom, left:right][part.image].sum(dtype=np.float64)) / scale.mass


def _box(values: NDArray[np.float32], part: RegionProperties, scale: _Scale) -> tuple[int, int, int, int]:
    per_row, per_column = scale.image_shape[0] / values.shape[0], scale.image_shape[1] / values.shape[1]
    top, left, bottom, right = part.bbox
    return (
        int(np.floor(left * per_column)),
        int(np.floor(top * per_row)),
        min(int(np.ceil(right * per_column)), scale.image_shape[1]),
        min(int(np.ceil(bottom * per_row)), scale.image_shape[0]),
    )


def _region(values: NDArray[np.float32], labelled: NDArray[np.int_], part: RegionProperties, scale: _Scale) -> Region:
    per_row, per_column = scale.image_shape[0] / values.shape[0], scale.image_shape[1] / values.shape[1]
    top, left, bottom, right = part.bbox
    inside = part.image
    window = values[top:bottom, left:right]
    row, column = np.unravel_index(int(np.argmax(np.where(inside, window, -np.inf))), window.shape)
    area = float(part.area) * per_row * per_column
    spacing = scale.spacing_mm
    return Region(
        box=_box(values, part, scale),
        contour=_contour(values, labelled, part, scale.level) * (per_column, per_row),
        area_pixels=area,
        area_mm2=area * spacing[0] * spacing[1] if spacing else None,
        peak=((left + float(column) + 0.5) * per_column, (top + float(row) + 0.5) * per_row),
        peak_value=float(window[row, column]),
        mean_value=float(window[inside].mean(dtype=np.float64)),
        share=_share(values, part, scale),
        threshold_fraction=scale.fraction,
    )


def _contour(
    values: NDArray[np.float32], labelled: NDArray[np.int_], part: RegionProperties, level: float
) -> NDArray[np.float64]:
    """Outer line x, y of a region on the working grid, closed, within the grid's outer edges."""
    top, left = max(part.bbox[0] - 1, 0), max(part.bbox[1] - 1, 0)
    window = (slice(top, part.bbox[2] + 1), slice(left, part.bbox[3] + 1))
    alone = np.where((labelled[window] == part.label) | (labelled[window] == 0), values[window], 0.0)
    padded = np.pad(alone.astype(np.float64), 1)
    lines = find_contours(padded, level, fully_connected="high")  # type: ignore[no-untyped-call]
    outer = max(lines, key=_enclosed_area)
    simple = approximate_polygon(outer, SIMPLIFICATION)  # type: ignore[no-untyped-call]
    chosen = simple if len(simple) >= 4 else outer
    points = np.clip(chosen[:, ::-1] + (left - 0.5, top - 0.5), 0.0, (values.shape[1], values.shape[0]))
    points[-1] = points[0]
    return np.ascontiguousarray(points)


def _enclosed_area(line: NDArray[np.float64]) -> float:
    rows, columns = line[:, 0], line[:, 1]
    return float(abs(np.dot(rows[:-1], columns[1:]) - np.dot(rows[1:], columns[:-1]))) / 2
