"""The patient's picture as it is shown: sized, coloured, outlined; writes nothing on it but the outlines' numbers."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage
from PIL import ImageDraw

from cam_core.image import Image
from cam_core.lettering import font
from cam_core.palette import blend
from cam_core.picture import OverlayStyle
from cam_core.saliency import Region, SaliencyMap, by_map_maximum, place

SMALLEST_SIDE = 512
"""Pictures with a shorter longest side are enlarged by a whole factor, pixel."""

ENLARGED_SIDE = 768
"""What they are enlarged to, at least, pixel."""

PLACED_SIDE = 1024
"""Longest side on which a map is spread in full precision; between its pixels the levels are interpolated, pixel."""

WHITE = (255, 255, 255)
DARK = (0, 0, 0)


def display_scale(shape: tuple[int, int], maximum_side: int) -> float:
    """Picture pixels per image pixel: reduced to the maximum side, or enlarged by a whole factor when small."""
    longest = max(shape)
    if longest > maximum_side:
        return maximum_side / longest
    if longest >= SMALLEST_SIDE:
        return 1.0
    return float(max(min(math.ceil(ENLARGED_SIDE / longest), maximum_side // longest), 1))


_plain_tiles: WeakKeyDictionary[Image, dict[float, NDArray[np.uint8]]] = WeakKeyDictionary()
_plain_lock = threading.Lock()


def plain_tile(image: Image, scale: float) -> NDArray[np.uint8]:
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


def _sized(shown: NDArray[np.uint8], scale: float) -> NDArray[np.uint8]:
    if scale == 1:
        return shown
    size = (max(round(shown.shape[1] * scale), 1), max(round(shown.shape[0] * scale), 1))
    filter_ = PillowImage.Resampling.BOX if scale < 0.5 else PillowImage.Resampling.BICUBIC
    return np.asarray(PillowImage.fromarray(shown).resize(size, filter_))


def coloured_tile(plain: NDArray[np.uint8], saliency: SaliencyMap, style: OverlayStyle) -> PillowImage.Image:
    """The map's positive part, divided by its maximum, in colour over the plain tile; a blank map adds nothing."""
    if saliency.is_blank:
        return PillowImage.fromarray(plain).convert("RGB")
    level = _levels(saliency, (plain.shape[0], plain.shape[1]))
    mixed = blend(plain, level, style.palette, style.opacity)
    return PillowImage.frombuffer("RGBX", (mixed.shape[1], mixed.shape[0]), mixed, "raw", "RGBX", 0, 1).convert("RGB")


def _levels(saliency: SaliencyMap, shape: tuple[int, int]) -> NDArray[np.uint8]:
    factor = min(1.0, PLACED_SIDE / max(shape))
    placed_shape = (max(round(shape[0] * factor), 1), max(round(shape[1] * factor), 1))
    level: NDArray[np.uint8] = (by_map_maximum(place(saliency, placed_shape)) * 255 + np.float32(0.5)).astype(np.uint8)
    if placed_shape == shape:
        return level
    return np.asarray(PillowImage.fromarray(level).resize((shape[1], shape[0]), PillowImage.Resampling.BILINEAR))


def outline(tile: PillowImage.Image, found: Sequence[Region], scale: float) -> None:
    """Draw the regions' contours on a tile: a thin white line with a dark edge, seen on black and on white.

    Where there are several, each has its number beside it, the one by which reports call it.
    """
    thin = max(max(tile.size) / 700, 1.5)
    for region in found:
        points = region.contour * scale
        low = np.maximum(np.floor(points.min(axis=0) - 3 * thin), 0).astype(int)
        high = np.minimum(np.ceil(points.max(axis=0) + 3 * thin), tile.size).astype(int)
        size = (int(high[0] - low[0]), int(high[1] - low[1]))
        for colour, wide in ((DARK, 2.2 * thin), (WHITE, thin)):
            tile.paste(colour, (int(low[0]), int(low[1])), _line_mask(points - low, size, wide))
    if len(found) > 1:
        for region in found:
            _write_number(tile, region, scale)


def _write_number(tile: PillowImage.Image, region: Region, scale: float) -> None:
    """A region's number outside the upper left of its outline, as near as the picture's edge allows."""
    size = max(round(max(tile.size) / 40), 13)
    points = region.contour * scale
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
