"""From a picture or a volume to the batch that a model takes, as its card says; runs no model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cam_core.card import InputSpecification
from cam_core.errors import ImageError
from cam_core.image import Fit, Image, Volume, fit_to, to_grid, with_channels

LEAST_DEVIATION = 1e-3
"""Divisor of a picture without contrast, display value."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Fitted:
    """A picture or a volume on the model's grid, not yet normalised.

    Attributes
    ----------
    values : (*grid, C) float32, display value
    fit : Fit
    pitch : one float an axis
        Distance of neighbouring grid pixels, in mm where the spacing is known and else in pixels of the source.
    """

    values: NDArray[np.float32]
    fit: Fit
    pitch: tuple[float, ...]


def model_input(image: Image | Volume, specification: InputSpecification) -> tuple[NDArray[np.float32], Fit]:
    """Fit and normalise a picture or a volume.

    Returns
    -------
    batch : (1, C, *grid) float32
    fit : Fit

    Raises
    ------
    ImageError
        When the model takes volumes and this is a picture, or the other way round.
    """
    placed = fitted(image, specification)
    return normalised(placed.values, specification), placed.fit


def fitted(image: Image | Volume, specification: InputSpecification) -> Fitted:
    """Bring a picture or a volume onto the model's grid.

    A volume of known spacing that is padded keeps the proportions of the body: its slices, rows and columns may lie at
    different distances.

    Raises
    ------
    ImageError
        As `model_input` does.
    """
    if len(image.shape) != len(specification.grid):
        wanted = "a volume" if specification.slices else "a picture"
        raise ImageError(f"the model takes {wanted}, this has {len(image.shape)} axes")
    if isinstance(image, Volume):
        fit = fit_to(image.shape, specification.grid, specification.fit, image.spacing_mm)
        pixels = np.repeat(image.voxels[..., None], specification.channels, axis=3)
    else:
        fit = fit_to(image.shape, specification.grid, specification.fit)
        pixels = with_channels(image.pixels, specification.channels)
    spacing = image.spacing_mm or (1.0,) * len(fit.scale)
    return Fitted(
        values=to_grid(pixels, fit, specification.pad_value),
        fit=fit,
        pitch=tuple(step / scale for step, scale in zip(spacing, fit.scale, strict=True)),
    )


def normalised(values: NDArray[np.float32], specification: InputSpecification) -> NDArray[np.float32]:
    """From display values (*grid, C) to a batch (1, C, *grid): by their own mean and deviation, or by the card's."""
    return np.ascontiguousarray(np.moveaxis(_normalised(values, specification), -1, 0)[None])


def _normalised(grid: NDArray[np.float32], specification: InputSpecification) -> NDArray[np.float32]:
    """Normalise (*grid, C): by the grid's own mean and population deviation, or by the card's constants per channel."""
    if specification.normalisation == "per-image":
        mean = np.float32(grid.mean(dtype=np.float64))
        deviation = np.float32(max(grid.std(dtype=np.float64), LEAST_DEVIATION))
        return (grid - mean) / deviation
    means = np.asarray(specification.mean, dtype=np.float32)
    deviations = np.asarray(specification.sd, dtype=np.float32)
    normalised: NDArray[np.float32] = (grid - means) / deviations
    return normalised
