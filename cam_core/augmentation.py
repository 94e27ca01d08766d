"""Small random changes of a picture on a model's grid, as a reader would hardly notice them; asks no model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cam_core.card import Augmentations
from cam_core.image import inside
from cam_core.model_input import Fitted

MID_GREY = 0.5
"""Display value that a change of contrast leaves where it is."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Change:
    """What is done to one picture.

    Attributes
    ----------
    shift : (axes,) float64, part of the grid's side
    rotation : float, radian
    zoom, contrast : float
        1 changes nothing.
    brightness : float, display value
    mirrored : bool
    noise : (*grid) float32 or None, display value
        Added to every channel alike.
    """

    shift: NDArray[np.float64]
    rotation: float
    zoom: float
    mirrored: bool
    brightness: float
    contrast: float
    noise: NDArray[np.float32] | None


def draw(augmentations: Augmentations, grid: tuple[int, ...], source: np.random.Generator) -> Change:
    """One change, drawn evenly from plus or minus the card's amounts; the noise is normal.

    Every amount takes its turn, also those that are 0, so that declaring one more leaves the others as they were.
    """
    *shift, rotation, scale, brightness, contrast, mirror = source.uniform(-1, 1, len(grid) + 5)
    noise = augmentations.noise * source.standard_normal(grid) if augmentations.noise else None
    return Change(
        shift=augmentations.shift * np.asarray(shift),
        rotation=float(np.radians(augmentations.rotation * rotation)),
        zoom=1 + augmentations.scale * scale,
        mirrored=augmentations.mirror_invariant and mirror > 0,
        brightness=augmentations.brightness * brightness,
        contrast=1 + augmentations.contrast * contrast,
        noise=None if noise is None else noise.astype(np.float32),
    )


def changed(picture: Fitted, change: Change, pad_value: float) -> NDArray[np.float32]:
    """Move a picture on its grid, then change the brightness of what belongs to it; the border stays `pad_value`.

    The move is one linear resampling. ``x' = clip(0.5 + contrast (x - 0.5) + brightness + noise, 0, 1)`` is the
    brightness afterwards, as a display shows no more than white.

    Parameters
    ----------
    picture : Fitted
    change : Change
    pad_value : float
        Display value of the border, and of what comes in from outside the grid.

    Returns
    -------
    (*grid, C) float32, display value
    """
    values = np.stack(
        [
            _moved(picture.values[..., channel], picture, change, pad_value)
            for channel in range(picture.values.shape[-1])
        ],
        axis=-1,
    )
    if change.noise is None and change.contrast == 1 and change.brightness == 0:
        return values
    shown = MID_GREY + np.float32(change.contrast) * (values - MID_GREY) + np.float32(change.brightness)
    if change.noise is not None:
        shown += change.noise[..., None]
    film = np.zeros(values.shape[:-1], dtype=np.float32)
    film[inside(picture.fit)] = 1
    share = _moved(film, picture, change, 0.0)[..., None]
    made: NDArray[np.float32] = values + share * (np.clip(shown, 0, 1) - values)
    return made


def _moved(plane: NDArray[np.float32], picture: Fitted, change: Change, outside: float) -> NDArray[np.float32]:
    matrix, offset = _inverse(picture, change)
    if (matrix == np.eye(len(matrix))).all() and not offset.any():
        return plane
    moved: NDArray[np.float32] = ndimage.affine_transform(
        plane, matrix, offset, order=1, mode="grid-constant", cval=outside, output=np.float32
    )
    return moved


def _inverse(picture: Fitted, change: Change) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """From a pixel of the moved grid to the place it is read from: ``matrix @ index + offset``.

    Rotation and zoom are rigid in the body, whatever the distances of the grid's rows and columns are.
    """
    sizes = np.asarray(picture.fit.target_shape, dtype=np.float64)
    matrix = np.eye(sizes.size)
    cosine, sine = np.cos(change.rotation), np.sin(change.rotation)
    row, column = picture.pitch[-2:]
    turned = np.array([[cosine, sine * column / row], [-sine * row / column, cosine]]) / change.zoom
    if change.mirrored:
        turned[:, 1] *= -1
    matrix[-2:, -2:] = turned
    centre = (sizes - 1) / 2
    return matrix, centre - matrix @ (centre + change.shift * sizes)
