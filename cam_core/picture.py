"""What a drawn picture is and how it may be styled; draws nothing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cam_core.errors import OverlayError
from cam_core.normalisation import Normalisation

PALETTES = ("cividis", "inferno", "viridis", "magma", "plasma", "jet")
"""Permitted palettes. All but ``jet`` rise evenly in lightness and can be read without colour vision."""

OPACITY_BOUNDS = (0.30, 0.50)
"""Least and greatest opacity of the colour, so that it is seen and the anatomy under it stays visible."""

LARGEST_SIDE = 8192
"""Greatest permitted `maximum_side`, pixel."""


@dataclass(frozen=True, kw_only=True)
class OverlayStyle:
    """How overlays are drawn.

    Attributes
    ----------
    opacity : float, 0.30..0.50
        Opacity of the colour where the map is largest; it falls with the map to nothing where the map is zero.
    palette : str
        One of `PALETTES`.
    maximum_side : int, pixel
        The anatomy is reduced to at most this long a side.
    demonstration_only : bool
        Whether every picture says that the model is not for clinical use.
    normalisations : tuple of Normalisation
        Scales that maps of several pictures share; a map for which there is none is shown on its own.
    """

    opacity: float = 0.40
    palette: str = "cividis"
    maximum_side: int = 2048
    demonstration_only: bool = False
    normalisations: tuple[Normalisation, ...] = ()

    def __post_init__(self) -> None:
        low, high = OPACITY_BOUNDS
        if not low <= self.opacity <= high:
            raise OverlayError(f"opacity {self.opacity} is outside {low:.2f} to {high:.2f}")
        if self.palette not in PALETTES:
            raise OverlayError(f"unknown palette {self.palette!r}; known: {', '.join(PALETTES)}")
        if not 256 <= self.maximum_side <= LARGEST_SIDE:
            raise OverlayError(f"maximum side {self.maximum_side} is outside 256 to {LARGEST_SIDE} pixels")


@dataclass(frozen=True, kw_only=True, eq=False)
class OverlayPicture:
    """A drawn picture and where the anatomy is on it.

    Attributes
    ----------
    pixels : (H, W, 3) uint8
        RGB; both sizes are even.
    anatomy : (x0, y0, x1, y1) int, pixel, or None
        Where the (first) picture of the patient lies, the last two exclusive; None when there is none.
    scale : (row, column) float, picture pixel per image pixel
        With the image's spacing this gives the picture's: ``spacing / scale``. The two differ when the image's pixels
        are not square: the picture's always are.
    normalisations : tuple of Normalisation
        On which scale each map is shown, in the order of the maps.
    """

    pixels: NDArray[np.uint8]
    anatomy: tuple[int, int, int, int] | None
    scale: tuple[float, float]
    normalisations: tuple[Normalisation, ...] = ()
