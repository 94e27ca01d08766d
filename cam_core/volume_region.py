"""The regions of a volume's map: where it is high, how large that is, its outline on any plane.

They are found on a grid of bounded size, whatever the volume's: the placed map of a large volume need not exist.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cam_core.contour import outer_lines
from cam_core.part import Part, Parts, parts_over
from cam_core.registration import cell_positions
from cam_core.resample import sample_linear
from cam_core.saliency import SaliencyMap, place
from cam_core.threshold import Threshold, ThresholdKind, share_of_maximum
from cam_core.volume_slice import Plane, check, read_across

WORKING_SIDE = 128
"""Longest side of the grid on which regions are found, whatever the volume's size; shorter sides keep their voxels."""


@dataclass(frozen=True, kw_only=True, eq=False)
class VolumeRegion:
    """One connected part of a volume's map over a threshold; voxels that share a face, edge or corner are connected.

    Coordinates are voxels: x along columns, y along rows, z along slices; the centre of voxel ``i`` is at ``i + 0.5``.

    Attributes
    ----------
    box : (x0, y0, z0, x1, y1, z1) int, voxel
        Smallest box of whole voxels; the last three are exclusive.
    volume_voxels : float, voxel
    volume_mm3 : float or None, mm3
        None when the spacing is unknown.
    peak : (x, y, z) float, voxel
        Of several equal ones the first in reading order.
    peak_value, mean_value : float, the map's own scale
    share : float, 0..1
        Part of the map's positive mass that lies in the region.
    threshold_kind, threshold_level, threshold_fraction, number, of, specks
        As in `cam_core.region.Region`.
    mask : (d, h, w) bool
        Where the region is, on the working grid, from `mask_start` on.
    mask_start, grid : (slice, row, column) int, sample
        First sample of the mask on the working grid and size of that grid, which covers the whole volume: sample ``i``
        of an axis lies at ``(i + 0.5) * voxels / samples``.
    """

    box: tuple[int, int, int, int, int, int]
    volume_voxels: float
    volume_mm3: float | None
    peak: tuple[float, float, float]
    peak_value: float
    mean_value: float
    share: float
    threshold_kind: ThresholdKind
    threshold_level: float
    threshold_fraction: float
    number: int
    of: int
    specks: int
    mask: NDArray[np.bool_]
    mask_start: tuple[int, int, int]
    grid: tuple[int, int, int]


def volume_regions(
    saliency: SaliencyMap,
    *,
    threshold: Threshold | float = 0.5,
    spacing_mm: tuple[float, float, float] | None = None,
    limit: int = 5,
) -> tuple[VolumeRegion, ...]:
    """The connected regions of a volume's map, the one with most evidence first, without specks.

    Parameters
    ----------
    saliency : SaliencyMap
        Of a volume; a blank one has none.
    threshold : Threshold or float
        A number is a share of the map's maximum.
    spacing_mm : (slice, row, column) float or None, mm
        Without it volumes in mm3 are not given.
    limit : int
        At most so many regions; each tells how many there are.
    """
    chosen = threshold if isinstance(threshold, Threshold) else share_of_maximum(threshold)
    if saliency.is_blank or limit < 1:
        return ()
    values = place(saliency, working_shape(saliency.fit.source_shape))
    if values.max() <= 0:
        return ()
    parts = parts_over(values, chosen, limit)
    per = [size / one for size, one in zip(saliency.fit.source_shape, values.shape, strict=True)]
    grid = _Grid(values=values, parts=parts, kind=chosen.kind, per=per, spacing_mm=spacing_mm)
    return tuple(grid.region(part, number) for number, part in enumerate(parts.found, 1))


def working_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Size of the grid on which the regions of a volume of this shape are found, sample."""
    return tuple(min(WORKING_SIDE, size) for size in shape)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Grid:
    """The placed map and its way to the volume's voxels."""

    values: NDArray[np.float32]
    parts: Parts
    kind: ThresholdKind
    per: list[float]
    spacing_mm: tuple[float, float, float] | None

    def region(self, part: Part, number: int) -> VolumeRegion:
        (z0, z1), (y0, y1), (x0, x1) = (
            (int(np.floor(one.start * per)), min(int(np.ceil(one.stop * per)), round(size * per)))
            for one, per, size in zip(part.window, self.per, self.values.shape, strict=True)
        )
        z, y, x = ((index + 0.5) * per for index, per in zip(part.peak, self.per, strict=True))
        voxels = float(np.count_nonzero(part.mask)) * float(np.prod(self.per))
        slices, rows, columns = self.values.shape
        first_slice, first_row, first_column = (int(one.start) for one in part.window)
        return VolumeRegion(
            box=(x0, y0, z0, x1, y1, z1),
            volume_voxels=voxels,
            volume_mm3=voxels * float(np.prod(self.spacing_mm)) if self.spacing_mm else None,
            peak=(x, y, z),
            peak_value=part.peak_value,
            mean_value=part.mean_value,
            share=part.share,
            threshold_kind=self.kind,
            threshold_level=self.parts.level,
            threshold_fraction=self.parts.fraction,
            number=number,
            of=self.parts.of,
            specks=self.parts.specks,
            mask=part.mask,
            mask_start=(first_slice, first_row, first_column),
            grid=(slices, rows, columns),
        )


def outlines(saliency: SaliencyMap, region: VolumeRegion, plane: Plane) -> list[NDArray[np.float64]]:
    """A region's closed outlines on a plane of the volume, largest first; none where it doesn't reach.

    Parameters
    ----------
    saliency : SaliencyMap
        The map that the region is of.
    region : VolumeRegion
    plane : Plane
        The sample plane of the working grid that lies nearest to it is outlined.

    Returns
    -------
    list of (N, 2) float64, voxel
        Across and down the plane, first point equal to the last; inside the plane. Holes have no line.
    """
    shape = saliency.fit.source_shape
    check(plane, shape)
    sample = int((plane.index + 0.5) * region.grid[plane.axis] / shape[plane.axis])
    inside = mask_on(region, plane.axis, sample)
    if not inside.any():
        return []
    positions = cell_positions(saliency.registration, saliency.fit, region.grid)
    axes = plane.shown_axes
    values = sample_linear(read_across(saliency, plane.axis, positions, sample), [positions[axis] for axis in axes])
    alone = np.where(inside | (values < region.threshold_level), values, np.float32(0))
    down, across = (shape[axis] / region.grid[axis] for axis in axes)
    return [line * (across, down) for line in outer_lines(alone, region.threshold_level)]


def slice_outlines(saliency: SaliencyMap, region: VolumeRegion) -> Iterator[tuple[int, list[NDArray[np.float64]]]]:
    """Every stacked slice that a region reaches, from 0, with its outlines there (`outlines`)."""
    for index in range(region.box[2], region.box[5]):
        lines = outlines(saliency, region, Plane(axis=0, index=index))
        if lines:
            yield index, lines


def mask_on(region: VolumeRegion, axis: int, sample: int) -> NDArray[np.bool_]:
    """Where a region is on one plane of samples of the working grid, the whole plane."""
    down, across = (one for one in range(3) if one != axis)
    whole = np.zeros((region.grid[down], region.grid[across]), dtype=bool)
    within = sample - region.mask_start[axis]
    if 0 <= within < region.mask.shape[axis]:
        part = np.take(region.mask, within, axis=axis)
        top, left = region.mask_start[down], region.mask_start[across]
        whole[top : top + part.shape[0], left : left + part.shape[1]] = part
    return whole
