"""Display pixels with millimetres and the invertible way to a model's grid and back; knows no files and no model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cam_core.errors import ImageError
from cam_core.resample import resize, sample_linear

FitMode = Literal["pad", "stretch"]

LUMINANCE = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in the grey value (ITU-R BT.601)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Image:
    """A picture as a reader would see it.

    Attributes
    ----------
    pixels : (H, W) or (H, W, 3) float32, 0 black .. 1 white
        Display values, after every look-up table and inversion.
    spacing_mm : (row, column) float or None, mm
        Distance of neighbouring pixel centres down and across; None when unknown.
    """

    pixels: NDArray[np.float32]
    spacing_mm: tuple[float, float] | None

    def __post_init__(self) -> None:
        shape = self.pixels.shape
        if len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] != 3) or 0 in shape:
            raise ImageError(f"expected (rows, columns) or (rows, columns, 3) pixels, found shape {shape}")
        if not np.isfinite(self.pixels).all():
            raise ImageError("some pixels are not finite numbers")
        _check_spacing(self.spacing_mm)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.pixels.shape[0], self.pixels.shape[1]


@dataclass(frozen=True, kw_only=True, eq=False)
class Volume:
    """A stack of slices of one body, as a reader would see it.

    Attributes
    ----------
    voxels : (D, H, W) float32, 0 black .. 1 white
        Display values; slices in their order along the stacking direction.
    spacing_mm : (slice, row, column) float or None, mm
        Distance of neighbouring voxel centres along each axis, which may differ; None when unknown.
    """

    voxels: NDArray[np.float32]
    spacing_mm: tuple[float, float, float] | None

    def __post_init__(self) -> None:
        if self.voxels.ndim != 3 or 0 in self.voxels.shape:
            raise ImageError(f"expected (slices, rows, columns) voxels, found shape {self.voxels.shape}")
        if not np.isfinite(self.voxels).all():
            raise ImageError("some voxels are not finite numbers")
        _check_spacing(self.spacing_mm)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Slices, rows and columns."""
        slices, rows, columns = self.voxels.shape
        return slices, rows, columns


def _check_spacing(spacing_mm: tuple[float, ...] | None) -> None:
    if spacing_mm is not None and not all(np.isfinite(one) and one > 0 for one in spacing_mm):
        raise ImageError(f"a spacing of {spacing_mm} mm is not possible")


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Where the pixels of a picture (two axes) or a volume (three) lie on a model's grid.

    Coordinates count from the outer edge of the first pixel, so the centre of pixel ``i`` is ``i + 0.5``:
    ``target = source * scale + offset``.

    Attributes
    ----------
    source_shape, target_shape : (rows, columns) or (slices, rows, columns), pixel
    scale : one float an axis, target pixel per source pixel
    offset : one float an axis, target pixel
    """

    source_shape: tuple[int, ...]
    target_shape: tuple[int, ...]
    scale: tuple[float, ...]
    offset: tuple[float, ...]


def fit_to(
    image_shape: Sequence[int],
    target_shape: Sequence[int],
    mode: FitMode,
    proportions: Sequence[float] | None = None,
) -> Fit:
    """The way from a picture to a grid: centred with borders (``pad``) or filling it (``stretch``).

    Parameters
    ----------
    image_shape, target_shape : sequence of int, pixel
    mode : ``pad`` or ``stretch``
    proportions : sequence of float, optional
        Spacing along each axis, any unit. With it, ``pad`` keeps the proportions of the body and not those of the
        array: one pixel of the grid then covers the same length along every axis.
    """
    inner = tuple(target_shape)
    if mode == "pad":
        spacings = proportions or (1.0,) * len(image_shape)
        lengths = [size * spacing for size, spacing in zip(image_shape, spacings, strict=True)]
        factor = min(target / length for target, length in zip(target_shape, lengths, strict=True))
        inner = tuple(
            min(max(round(length * factor), 1), target) for length, target in zip(lengths, target_shape, strict=True)
        )
    return Fit(
        source_shape=tuple(image_shape),
        target_shape=tuple(target_shape),
        scale=tuple(one / source for one, source in zip(inner, image_shape, strict=True)),
        offset=tuple(float((target - one) // 2) for one, target in zip(inner, target_shape, strict=True)),
    )


def to_grid(pixels: NDArray[np.float32], fit: Fit, pad_value: float) -> NDArray[np.float32]:
    """Resample a picture or a volume onto the model's grid, antialiased; the border gets `pad_value`.

    Parameters
    ----------
    pixels : (H, W), (H, W, C) or (D, H, W) float32
        With one axis more than the fit has, the last one holds channels.
    fit : Fit
    pad_value : float
        Display value of the border.

    Returns
    -------
    float32, the fit's target shape, with the channels where there are any
    """
    axes = len(fit.source_shape)
    if pixels.shape[:axes] != fit.source_shape:
        raise ImageError(f"the fit is for shape {fit.source_shape}, the pixels have {pixels.shape[:axes]}")
    if pixels.ndim > axes:
        return np.stack([to_grid(pixels[..., i], fit, pad_value) for i in range(pixels.shape[-1])], axis=-1)
    place = inside(fit)
    grid = np.full(fit.target_shape, pad_value, dtype=np.float32)
    grid[place] = resize(np.ascontiguousarray(pixels, dtype=np.float32), [one.stop - one.start for one in place])
    return grid


def inside(fit: Fit) -> tuple[slice, ...]:
    """The part of the grid that the picture fills, one slice an axis; the rest is border."""
    inner = [round(size * scale) for size, scale in zip(fit.source_shape, fit.scale, strict=True)]
    return tuple(slice(int(first), int(first) + size) for first, size in zip(fit.offset, inner, strict=True))


def from_grid(values: NDArray[np.float32], fit: Fit, shape: Sequence[int] | None = None) -> NDArray[np.float32]:
    """Bring values on the model's grid back to the picture, linearly between grid pixels.

    Parameters
    ----------
    values : (..., *grid) float32
    fit : Fit
    shape : sequence of int, optional
        Read a picture of this size over the same area instead of the source's own size.
    """
    return sample_linear(values, grid_positions(fit, shape or fit.source_shape))


def grid_positions(fit: Fit, shape: Sequence[int]) -> tuple[NDArray[np.float64], ...]:
    """Where the pixel centres of a `shape` picture over the source's area lie on the grid.

    Returns
    -------
    one (n,) float64 an axis, grid pixel index (0.0 is the centre of the first grid pixel)
    """
    return tuple(_axis_positions(fit, axis, count) for axis, count in enumerate(shape))


def _axis_positions(fit: Fit, axis: int, count: int) -> NDArray[np.float64]:
    edges = (np.arange(count, dtype=np.float64) + 0.5) * (fit.source_shape[axis] / count)
    return edges * fit.scale[axis] + fit.offset[axis] - 0.5


def grey(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """One channel: the luminance (ITU-R BT.601) of a colour picture, a grey picture as it is."""
    if pixels.ndim == 2:
        return pixels
    luminance: NDArray[np.float32] = (pixels @ np.asarray(LUMINANCE, dtype=np.float32)).astype(np.float32)
    return luminance


def with_channels(pixels: NDArray[np.float32], channels: int) -> NDArray[np.float32]:
    """The picture as (H, W, channels): 1 by luminance, 3 by repeating a grey one."""
    if channels == 1:
        return grey(pixels)[..., None]
    if pixels.ndim == 2:
        return np.repeat(pixels[..., None], channels, axis=2)
    return pixels
