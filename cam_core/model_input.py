"""From a picture or a volume to the batch that a model takes, as its card says; runs no model."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cam_core.card import InputSpecification
from cam_core.errors import ImageError
from cam_core.image import Fit, Image, Volume, fit_to, to_grid, with_channels

LEAST_DEVIATION = 1e-3
"""Divisor of a picture without contrast, display value."""


def model_input(image: Image | Volume, specification: InputSpecification) -> tuple[NDArray[np.float32], Fit]:
    """Fit and normalise a picture or a volume.

    A volume of known spacing that is padded keeps the proportions of the body: its slices, rows and columns may lie at
    different distances.

    Parameters
    ----------
    image : Image or Volume
    specification : InputSpecification

    Returns
    -------
    batch : (1, C, *grid) float32
    fit : Fit

    Raises
    ------
    ImageError
        When the model takes volumes and this is a picture, or the other way round.
    """
    if len(image.shape) != len(specification.grid):
        wanted = "a volume" if specification.slices else "a picture"
        raise ImageError(f"the model takes {wanted}, this has {len(image.shape)} axes")
    if isinstance(image, Volume):
        fit = fit_to(image.shape, specification.grid, specification.fit, image.spacing_mm)
        voxels = np.repeat(image.voxels[..., None], specification.channels, axis=3)
        grid = to_grid(voxels, fit, specification.pad_value)
    else:
        fit = fit_to(image.shape, specification.grid, specification.fit)
        grid = to_grid(with_channels(image.pixels, specification.channels), fit, specification.pad_value)
    return np.ascontiguousarray(np.moveaxis(_normalised(grid, specification), -1, 0)[None]), fit


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
