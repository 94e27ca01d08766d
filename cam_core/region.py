"""The regions of a picture's map: where it is high, how large that is and how much of the evidence lies there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cam_core.contour import outer_lines
from cam_core.part import Part, Parts, parts_over
from cam_core.saliency import SaliencyMap, place
from cam_core.threshold import Threshold, ThresholdKind, share_of_maximum

WORKING_SIDE = 512
"""Longest side of the grid on which regions are found, whatever the image's size, pixel."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Region:
    """One connected part of a map over a threshold.

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
        Of several equal ones the first in reading order.
    peak_value, mean_value : float, the map's own scale
    share : float, 0..1
        Part of the map's positive mass that lies in the region.
    threshold_kind : ``share``, ``otsu`` or ``fixed``
        How the level that bounds the region was chosen.
    threshold_level : float, the map's own scale
        That level.
    threshold_fraction : float, 0..1
        The level as a share of the map's maximum on the image.
    number, of : int
        Which region of how many the map has, from 1 for the one with most evidence.
    specks : int
        Parts of the map over the threshold that are too small to count (`cam_core.part.LEAST_SHARE`).
    """

    box: tuple[int, int, int, int]
    contour: NDArray[np.float64]
    area_pixels: float
    area_mm2: float | None
    peak: tuple[float, float]
    peak_value: float
    mean_value: float
    share: float
    threshold_kind: ThresholdKind
    threshold_level: float
    threshold_fraction: float
    number: int
    of: int
    specks: int


def regions(
    saliency: SaliencyMap,
    *,
    threshold: Threshold | float = 0.5,
    spacing_mm: tuple[float, float] | None = None,
    limit: int = 5,
) -> tuple[Region, ...]:
    """The connected regions of a picture's map, the one with most evidence first, without specks.

    Parameters
    ----------
    saliency : SaliencyMap
        A blank one has none.
    threshold : Threshold or float
        A number is a share of the map's maximum.
    spacing_mm : (row, column) float or None, mm
        Pixel spacing; without it areas in mm2 are not given.
    limit : int
        At most so many regions; each tells how many there are.
    """
    chosen = threshold if isinstance(threshold, Threshold) else share_of_maximum(threshold)
    if saliency.is_blank or limit < 1:
        return ()
    values = place(saliency, _working_shape(saliency.fit.source_shape))
    if values.max() <= 0:
        return ()
    parts = parts_over(values, chosen, limit)
    sizes = saliency.fit.source_shape
    return tuple(
        _Grid(values=values, parts=parts, kind=chosen.kind, image_shape=(sizes[0], sizes[1])).region(
            part, number, spacing_mm
        )
        for number, part in enumerate(parts.found, 1)
    )


def _working_shape(image_shape: tuple[int, ...]) -> tuple[int, ...]:
    factor = WORKING_SIDE / max(image_shape)
    return tuple(max(round(size * factor), 1) for size in image_shape)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Grid:
    """The placed map and its way to the image's pixels."""

    values: NDArray[np.float32]
    parts: Parts
    kind: ThresholdKind
    image_shape: tuple[int, int]

    def region(self, part: Part, number: int, spacing_mm: tuple[float, float] | None) -> Region:
        per_row, per_column = (size / one for size, one in zip(self.image_shape, self.values.shape, strict=True))
        area = float(np.count_nonzero(part.mask)) * per_row * per_column
        rows, columns = part.window
        return Region(
            box=(
                int(np.floor(columns.start * per_column)),
                int(np.floor(rows.start * per_row)),
                min(int(np.ceil(columns.stop * per_column)), self.image_shape[1]),
                min(int(np.ceil(rows.stop * per_row)), self.image_shape[0]),
            ),
            contour=self._contour(part) * (per_column, per_row),
            area_pixels=area,
            area_mm2=area * spacing_mm[0] * spacing_mm[1] if spacing_mm else None,
            peak=((part.peak[1] + 0.5) * per_column, (part.peak[0] + 0.5) * per_row),
            peak_value=part.peak_value,
            mean_value=part.mean_value,
            share=part.share,
            threshold_kind=self.kind,
            threshold_level=self.parts.level,
            threshold_fraction=self.parts.fraction,
            number=number,
            of=self.parts.of,
            specks=self.parts.specks,
        )

    def _contour(self, part: Part) -> NDArray[np.float64]:
        """The part's outer line on the working grid; the pixels next to it are looked at, other parts are not."""
        top, left = (max(one.start - 1, 0) for one in part.window)
        rows, columns = part.window
        values = self.values[top : rows.stop + 1, left : columns.stop + 1]
        inside = np.zeros(values.shape, dtype=bool)
        inside[rows.start - top :, columns.start - left :][: part.mask.shape[0], : part.mask.shape[1]] = part.mask
        alone = np.where(inside | (values < self.parts.level), values, np.float32(0))
        line: NDArray[np.float64] = outer_lines(alone, self.parts.level)[0] + (left, top)
        return line
