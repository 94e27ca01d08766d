"""How much of a map lies where no finding can be: outside the body, on letters, at the image's border.

What counts as such is found from the pixels by `cam_core.quality.body` and `cam_core.quality.burned_in`, whose limits
hold here too. A map made by chance has each share at about the region's own share of the image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cam_core.quality.body import body_mask
from cam_core.quality.burned_in import lettering_mask
from cam_core.quality.localisation import share_inside
from cam_core.quality.measure import Figure, missing
from cam_core.quality.scale import why_not_positive

BORDER_SHARE = 0.03
"""Width of the border, part of each in-plane axis."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Artefacts:
    """The places of one image where no finding can be.

    Attributes
    ----------
    outside : (*cells) bool or None
        Not the body; None where the body can't be told.
    lettering : (*cells) bool
        Boxes around letters.
    border : (*cells) bool
    """

    outside: NDArray[np.bool_] | None
    lettering: NDArray[np.bool_]
    border: NDArray[np.bool_]


def artefacts(pixels: NDArray[np.float32]) -> Artefacts:
    """Find them on an image.

    Parameters
    ----------
    pixels : (H, W) or (D, H, W) float32, 0 black .. 1 white
        Display values, bright means dense; not the model's normalised input.
    """
    body = body_mask(pixels)
    return Artefacts(
        outside=None if body is None else ~body,
        lettering=lettering_mask(pixels),
        border=border_mask(pixels.shape),
    )


def border_mask(shape: tuple[int, ...], share: float = BORDER_SHARE) -> NDArray[np.bool_]:
    """The outermost `share` of the rows and columns on each side, at least one of each."""
    mask = np.ones(shape, dtype=np.bool_)
    rows, columns = (max(round(share * size), 1) for size in shape[-2:])
    mask[..., rows:-rows, columns:-columns] = False
    return mask


def artefact_shares(values: NDArray[np.floating], places: Artefacts) -> tuple[Figure, Figure, Figure]:
    """Part of the positive map outside the body, on letters and at the border.

    Parameters
    ----------
    values : (*cells) float, raw map on the image's grid
    places : Artefacts
    """
    if values.shape != places.border.shape:
        raise ValueError(f"the map has shape {values.shape}, the image {places.border.shape}")
    return (
        _share("outside-body", values, places.outside, "the body can't be told from the pixels"),
        _share("on-lettering", values, places.lettering if places.lettering.any() else None, "no letters were found"),
        _share("on-border", values, places.border, ""),
    )


def _share(measure: str, values: NDArray[np.floating], place: NDArray[np.bool_] | None, otherwise: str) -> Figure:
    reason = why_not_positive(values)
    if reason or place is None:
        return missing(measure, reason or otherwise)
    return Figure(measure=measure, value=share_inside(values, place))
