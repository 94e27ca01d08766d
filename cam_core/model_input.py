"""From a picture to the batch that a model takes, as its card says; runs no model."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cam_core.card import InputSpecification
from cam_core.image import Fit, Image, fit_to, to_grid, with_channels

LEAST_DEVIATION = 1e-3
"""Divisor of a picture without contrast, display value."""


def model_input(image: Image, specification: InputSpecification) -> tuple[NDArray[np.float32], Fit]:
    """Fit and normalise a picture.

    Parameters
    ----------
    image : Image
    specification : InputSpecification

    Returns
    -------
    batch : (1, C, H, W) float32
    fit : Fit
    """
    fit = fit_to(image.shape, (specification.rows, specification.columns), specification.fit)
    grid = to_grid(with_channels(image.pixels, specification.channels), fit, specification.pad_value)
    return np.ascontiguousarray(_normalised(grid, specification).transpose(2, 0, 1)[None]), fit


def _normalised(grid: NDArray[np.float32], specification: InputSpecification) -> NDArray[np.float32]:
    """Normalise (H, W, C): by the grid's own mean and population deviation, or by the card's constants per channel."""
    if specification.normalisation == "per-image":
        mean = np.float32(grid.mean(dtype=np.float64))
        deviation = np.float32(max(grid.std(dtype=np.float64), LEAST_DEVIATION))
        return (grid - mean) / deviation
    means = np.asarray(specification.mean, dtype=np.float32)
    deviations = np.asarray(specification.sd, dtype=np.float32)
    normalised: NDArray[np.float32] = (grid - means) / deviations
    return normalised
