"""Small changes of an input that leave what it shows as it was, and the way back for its map; knows no model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage


@dataclass(frozen=True, kw_only=True, eq=False)
class Perturbation:
    """A change T of an input and its inverse on maps.

    Attributes
    ----------
    name : str
        What was done and how much.
    forward : callable
        From the input (C, *grid) float32 to T of it.
    back : callable
        From the map (*grid) of the changed input to the map as it lies on the input; NaN where it was out of view.
    """

    name: str
    forward: Callable[[NDArray[np.float32]], NDArray[np.float32]]
    back: Callable[[NDArray[np.floating]], NDArray[np.float64]]


def noise(share: float = 0.05, seed: int = 0) -> Perturbation:
    """Add normal noise of `share` of the input's own standard deviation."""

    def forward(image: NDArray[np.float32]) -> NDArray[np.float32]:
        drawn = np.random.default_rng(seed).standard_normal(image.shape)
        return np.asarray(image + share * image.std(dtype=np.float64) * drawn, dtype=np.float32)

    return Perturbation(name=f"noise {share:g} sd", forward=forward, back=_unmoved)


def contrast(gain: float = 1.1, offset: float = 0.0) -> Perturbation:
    """Widen or narrow the window about the input's mean, and move it by `offset` standard deviations."""

    def forward(image: NDArray[np.float32]) -> NDArray[np.float32]:
        mean, spread = image.mean(dtype=np.float64), image.std(dtype=np.float64)
        return np.asarray(mean + gain * (image - mean) + offset * spread, dtype=np.float32)

    return Perturbation(name=f"contrast x{gain:g} {offset:+g} sd", forward=forward, back=_unmoved)


def shift(cells: tuple[int, ...]) -> Perturbation:
    """Move the content by whole cells along each axis of the grid; the edge is held."""

    def forward(image: NDArray[np.float32]) -> NDArray[np.float32]:
        moved: NDArray[np.float32] = ndimage.shift(image, (0, *cells), order=0, mode="nearest")
        return moved

    def back(values: NDArray[np.floating]) -> NDArray[np.float64]:
        opposite = tuple(-one for one in cells)
        found: NDArray[np.float64] = ndimage.shift(
            values.astype(np.float64), opposite, order=0, mode="constant", cval=np.nan
        )
        return found

    return Perturbation(name=f"shift {cells}", forward=forward, back=back)


def rotation(degrees: float = 3.0) -> Perturbation:
    """Turn the last two axes about the middle, linearly interpolated; the edge is held."""

    def forward(image: NDArray[np.float32]) -> NDArray[np.float32]:
        turned: NDArray[np.float32] = ndimage.rotate(
            image, degrees, axes=(-2, -1), reshape=False, order=1, mode="nearest"
        )
        return turned

    def back(values: NDArray[np.floating]) -> NDArray[np.float64]:
        found: NDArray[np.float64] = ndimage.rotate(
            values.astype(np.float64), -degrees, axes=(-2, -1), reshape=False, order=1, mode="constant", cval=np.nan
        )
        return found

    return Perturbation(name=f"rotation {degrees:g} degrees", forward=forward, back=back)


def small_perturbations(grid: tuple[int, ...], seed: int = 0) -> tuple[Perturbation, ...]:
    """A set for a model's grid: noise, a wider and a narrower window, shifts by 2 % of each in-plane axis, a turn."""
    pixels = tuple(max(round(0.02 * size), 1) for size in grid[-2:])
    still = (0,) * (len(grid) - 2)
    return (
        noise(seed=seed),
        contrast(1.1),
        contrast(0.9),
        shift((*still, pixels[0], 0)),
        shift((*still, 0, -pixels[1])),
        rotation(3.0),
        rotation(-3.0),
    )


def _unmoved(values: NDArray[np.floating]) -> NDArray[np.float64]:
    return values.astype(np.float64)


def in_view(values: NDArray[np.float64]) -> tuple[slice, ...]:
    """A box without NaN, made by taking away, again and again, the face of the grid that has the largest part of them.

    Not the largest such box, but for the narrow margins that small movements leave it is near it.
    """
    lost = np.isnan(values)
    box = [slice(0, size) for size in values.shape]
    while lost[tuple(box)].any():
        inner = lost[tuple(box)]
        faces = [(float(inner.take(end, axis=axis).mean()), axis, end) for axis in range(inner.ndim) for end in (0, -1)]
        _, axis, end = max(faces, key=lambda face: face[0])
        side = box[axis]
        box[axis] = slice(side.start + 1, side.stop) if end == 0 else slice(side.start, side.stop - 1)
    return tuple(box)
