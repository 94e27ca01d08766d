"""One plane of a volume and of its map, along any of its axes; keeps the map's numbers, draws nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cam_core.image import Fit, Image, Volume
from cam_core.registration import Registration, cell_positions
from cam_core.resample import sample_linear
from cam_core.saliency import SaliencyMap


@dataclass(frozen=True, kw_only=True)
class Plane:
    """A plane of voxels.

    Attributes
    ----------
    axis : 0, 1 or 2
        Across which axis it lies: 0 is a slice as it was stacked, 1 a cut along a row of all slices, 2 along a column.
    index : int, voxel
        Which one, from 0.
    """

    axis: int
    index: int

    @property
    def shown_axes(self) -> tuple[int, int]:
        """The volume's axes that run down and across the plane."""
        down, across = (axis for axis in range(3) if axis != self.axis)
        return down, across


def check(plane: Plane, shape: tuple[int, ...]) -> None:
    """Raise ValueError when a volume of this shape has no such plane."""
    if plane.axis not in (0, 1, 2) or not 0 <= plane.index < shape[plane.axis]:
        raise ValueError(f"a volume of {shape} has no plane {plane.index} across axis {plane.axis}")


def image_slice(volume: Volume, plane: Plane) -> Image:
    """The plane as a picture, its first row from the lowest index of the axis that runs down."""
    check(plane, volume.shape)
    pixels = np.ascontiguousarray(np.take(volume.voxels, plane.index, axis=plane.axis), dtype=np.float32)
    spacing = volume.spacing_mm
    down, across = plane.shown_axes
    return Image(pixels=pixels, spacing_mm=(spacing[down], spacing[across]) if spacing else None)


def map_slice(saliency: SaliencyMap, plane: Plane) -> SaliencyMap:
    """The map on the plane, as the map of a picture; what `place` makes of it are the values of the volume's map.

    The map is linear along each axis, so it is first read at the plane, along the axis across it, and is then a map of
    two axes: no volume has to be filled. Whether it says something is for the whole map to tell, not for a slice.
    """
    check(plane, saliency.fit.source_shape)
    fit, registration = saliency.fit, saliency.registration
    down, across = plane.shown_axes
    return replace(
        saliency,
        values=read_across(saliency, plane.axis, cell_positions(registration, fit, fit.source_shape), plane.index),
        fit=Fit(
            source_shape=(fit.source_shape[down], fit.source_shape[across]),
            target_shape=(fit.target_shape[down], fit.target_shape[across]),
            scale=(fit.scale[down], fit.scale[across]),
            offset=(fit.offset[down], fit.offset[across]),
        ),
        registration=Registration(
            start=(registration.start[down], registration.start[across]),
            step=(registration.step[down], registration.step[across]),
            measured=registration.measured,
        ),
    )


def read_across(
    saliency: SaliencyMap, axis: int, positions: list[NDArray[np.float64]], index: int
) -> NDArray[np.float32]:
    """The map's cells on the plane at one of the `positions` along an axis, (h, w) float32."""
    whole = [np.arange(size, dtype=np.float64) for size in saliency.values.shape]
    whole[axis] = positions[axis][index : index + 1]
    return np.squeeze(sample_linear(saliency.values, whole), axis=axis)
