"""Display pixels with millimetres and the invertible way to a model's grid and back; knows no files and no model."""

from __future__ import annotations

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

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.pixels.shape[0], self.pixels.shape[1]


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Where the pixels of a picture lie on a model's grid.

    Coordinates count from the outer edge of the first pixel, so the centre of pixel ``i`` is ``i + 0.5``:
    ``target = source * scale + offset``.

    Attributes
    ----------
    source_shape, target_shape : (rows, columns), pixel
    scale : (rows, columns) float, target pixel per source pixel
    offset : (rows, columns) float, target pixel
    """

    source_shape: tuple[int, int]
    target_shape: tuple[int, int]
    scale: tuple[float, float]
    offset: tuple[float, float]


def fit_to(image_shape: tuple[int, int], target_shape: tuple[int, int], mode: FitMode) -> Fit:
    """The way from a picture to a grid: centred with borders (``pad``) or filling it (``stretch``)."""
    inner = target_shape
    if mode == "pad":
        factor = min(target_shape[0] / image_shape[0], target_shape[1] / image_shape[1])
        inner = (
            _inner_size(image_shape[0], target_shape[0], factor),
            _inner_size(image_shape[1], target_shape[1], factor),
        )
    return Fit(
        source_shape=image_shape,
        target_shape=target_shape,
        scale=(inner[0] / image_shape[0], inner[1] / image_shape[1]),
        offset=(float((target_shape[0] - inner[0]) // 2), float((target_shape[1] - inner[1]) // 2)),
    )


def _inner_size(source: int, target: int, factor: float) -> int:
    return min(max(round(source * factor), 1), target)


def to_grid(pixels: NDArray[np.float32], fit: Fit, pad_value: float) -> NDArray[np.float32]:
    """Resample a picture onto the model's grid, antialiased; the border gets `pad_value`.

    Parameters
    ----------
    pixels : (H, W) or (H, W, C) float32
    fit : Fit
    pad_value : float
        Display value of the border.

    Returns
    -------
    (h, w) or (h, w, C) float32
    """
    if pixels.shape[:2] != fit.source_shape:
        raise ImageError(f"the fit is for shape {fit.source_shape}, the pixels have {pixels.shape[:2]}")
    if pixels.ndim == 3:
        return np.stack([to_grid(pixels[..., i], fit, pad_value) for i in range(pixels.shape[2])], axis=-1)
    inner = (round(fit.source_shape[0] * fit.scale[0]), round(fit.source_shape[1] * fit.scale[1]))
    top, left = int(fit.offset[0]), int(fit.offset[1])
    grid = np.full(fit.target_shape, pad_value, dtype=np.float32)
    grid[top : top + inner[0], left : left + inner[1]] = resize(np.ascontiguousarray(pixels, dtype=np.float32), inner)
    return grid


def from_grid(values: NDArray[np.float32], fit: Fit, shape: tuple[int, int] | None = None) -> NDArray[np.float32]:
    """Bring values on the model's grid back to the picture, linearly between grid pixels.

    Parameters
    ----------
    values : (..., h, w) float32
    fit : Fit
    shape : (rows, columns), optional
        Read a picture of this size over the same area instead of the source's own size.
    """
    rows, columns = grid_positions(fit, shape or fit.source_shape)
    return sample_linear(values, rows, columns)


def grid_positions(fit: Fit, shape: tuple[int, int]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Where the pixel centres of a `shape` picture over the source's area lie on the grid.

    Returns
    -------
    rows, columns : (H,), (W,) float64, grid pixel index (0.0 is the centre of the first grid pixel)
    """
    return _axis_positions(fit, 0, shape[0]), _axis_positions(fit, 1, shape[1])


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
