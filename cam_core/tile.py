"""The patient's picture as it is shown: sized, coloured, outlined; writes nothing on it but the outlines' numbers."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from typing import Protocol
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage
from PIL import ImageDraw

from cam_core.image import Image
from cam_core.lettering import font
from cam_core.normalisation import Normalisation, normalise
from cam_core.palette import blend
from cam_core.picture import OverlayStyle
from cam_core.saliency import SaliencyMap, place

SMALLEST_SIDE = 512
"""Pictures with a shorter longest side are enlarged by a whole factor, pixel."""

ENLARGED_SIDE = 768
"""What they are enlarged to, at least, pixel."""

PLACED_SIDE = 1024
"""Longest side on which a map is spread in full precision; between its pixels the levels are interpolated, pixel."""

SQUARE = 0.02
"""Pixels whose sides differ by less than this part are square: half a percent of a film isn't worth resampling it."""

WHITE = (255, 255, 255)
DARK = (0, 0, 0)

Scale = tuple[float, float]
"""Picture pixels per image pixel, down and across."""


class Outlined(Protocol):
    """What has an outline and a number by which reports call it."""

    @property
    def contour(self) -> NDArray[np.float64]: ...

    @property
    def number(self) -> int: ...


def display_scale(image: Image, maximum_side: int) -> Scale:
    """How an image is sized: proportions true to the body, reduced to the maximum side, or enlarged when small.

    Pixels that are not square are enlarged along their longer side, so nothing is lost; small images are enlarged by a
    whole factor.
    """
    sides = image.spacing_mm or (1.0, 1.0)
    shorter, longer = min(sides), max(sides)
    down, across = (1.0, 1.0) if longer <= shorter * (1 + SQUARE) else (sides[0] / shorter, sides[1] / shorter)
    factor = _factor(max(image.shape[0] * down, image.shape[1] * across), maximum_side)
    return down * factor, across * factor


def _factor(longest: float, maximum_side: int) -> float:
    if longest > maximum_side:
        return maximum_side / longest
    if longest >= SMALLEST_SIDE:
        return 1.0
    return float(max(min(math.ceil(ENLARGED_SIDE / longest), maximum_side // longest), 1))


_plain_tiles: WeakKeyDictionary[Image, dict[Scale, NDArray[np.uint8]]] = WeakKeyDictionary()
_plain_lock = threading.Lock()


def plain_tile(image: Image, scale: Scale) -> NDArray[np.uint8]:
    """The image in 8 bits at a scale, reduced with antialiasing or enlarged smoothly, unmarked; not to be written to.

    Every map of an image is drawn on the same tile, so it is kept for as long as the image is.
    """
    with _plain_lock:
        known = _plain_tiles.setdefault(image, {})
        if scale not in known:
            known[scale] = _sized(_eight_bits(image), scale)
            known[scale].setflags(write=False)
        return known[scale]


def _eight_bits(image: Image) -> NDArray[np.uint8]:
    levels = np.clip(image.pixels, 0.0, 1.0) * np.float32(255)
    levels += np.float32(0.5)
    shown: NDArray[np.uint8] = levels.astype(np.uint8)
    return shown


def _sized(shown: NDArray[np.uint8], scale: Scale) -> NDArray[np.uint8]:
    if scale == (1, 1):
        return shown
    size = (max(round(shown.shape[1] * scale[1]), 1), max(round(shown.shape[0] * scale[0]), 1))
    filter_ = PillowImage.Resampling.BOX if max(scale) < 0.5 else PillowImage.Resampling.BICUBIC
    return np.asarray(PillowImage.fromarray(shown).resize(size, filter_))


def coloured_tile(
    plain: NDArray[np.uint8], saliency: SaliencyMap, scale: Normalisation, style: OverlayStyle
) -> PillowImage.Image:
    """The map on its scale in colour over the plain tile; an empty scale, that of a blank map, adds nothing."""
    if scale.is_empty:
        return PillowImage.fromarray(plain).convert("RGB")
    level = _levels(saliency, scale, (plain.shape[0], plain.shape[1]))
    mixed = blend(plain, level, style.palette, style.opacity)
    return PillowImage.frombuffer("RGBX", (mixed.shape[1], mixed.shape[0]), mixed, "raw", "RGBX", 0, 1).convert("RGB")


def _levels(saliency: SaliencyMap, scale: Normalisation, shape: tuple[int, int]) -> NDArray[np.uint8]:
    factor = min(1.0, PLACED_SIDE / max(shape))
    placed_shape = (max(round(shape[0] * factor), 1), max(round(shape[1] * factor), 1))
    shares = normalise(place(saliency, placed_shape), scale)
    level: NDArray[np.uint8] = (shares * np.float32(255) + np.float32(0.5)).astype(np.uint8)
    if placed_shape == shape:
        return level
    return np.asarray(PillowImage.fromarray(level).resize((shape[1], shape[0]), PillowImage.Resampling.BILINEAR))


def outline(tile: PillowImage.Image, found: Sequence[Outlined], scale: Scale, *, numbered: bool | None = None) -> None:
    """Draw contours on a tile: a thin white line with a dark edge, seen on black and on white.

    Each has its number beside it, the one by which reports call it, if `numbered`; unless told, when there are several.
    """
    thin = max(max(tile.size) / 700, 1.5)
    across_down = (scale[1], scale[0])
    for region in found:
        points = region.contour * across_down
        low = np.maximum(np.floor(points.min(axis=0) - 3 * thin), 0).astype(int)
        high = np.minimum(np.ceil(points.max(axis=0) + 3 * thin), tile.size).astype(int)
        size = (int(high[0] - low[0]), int(high[1] - low[1]))
        for colour, wide in ((DARK, 2.2 * thin), (WHITE, thin)):
            tile.paste(colour, (int(low[0]), int(low[1])), _line_mask(points - low, size, wide))
    if numbered or (numbered is None and len(found) > 1):
        for region in found:
            _write_number(tile, region, region.contour * across_down)


def _write_number(tile: PillowImage.Image, region: Outlined, points: NDArray[np.float64]) -> None:
    """A region's number outside the upper left of its outline, as near as the picture's edge allows."""
    size = max(round(max(tile.size) / 40), 18)
    x, y = points[np.argmin(points.sum(axis=1))]  # the outline's own upper left, not its box's, which may be far off
    right = min(max(float(x) - 0.3 * size, 0.8 * size), tile.width - 1.0)
    bottom = min(max(float(y) - 0.1 * size, 1.2 * size), tile.height - 1.0)
    ImageDraw.Draw(tile).text(
        (right, bottom),
        str(region.number),
        fill=WHITE,
        font=font(size),
        anchor="rs",
        stroke_width=max(round(size / 9), 1),
        stroke_fill=DARK,
    )


def _line_mask(points: NDArray[np.float64], size: tuple[int, int], wide: float) -> PillowImage.Image:
    """A smooth line as a mask: drawn finer than the tile and reduced."""
    finer = 4 if max(size) <= 512 else 2
    mask = PillowImage.new("L", (size[0] * finer, size[1] * finer))
    line = [(float(x), float(y)) for x, y in points * finer]
    ImageDraw.Draw(mask).line(line, fill=255, width=max(round(wide * finer), 1), joint="curve")
    return mask.reduce(finer)
