"""Where letters stand on an image, found from its pixels alone; reads none of them and knows no header and no map.

Made for projection radiographs: text burned into the pixels and lead markers. A letter is told from anatomy by what a
character has and a rib, a vessel or a wire has not, all at once: it is brighter (or darker) than its surroundings
within a stroke's reach, of a character's size, made of strokes, of one grey value, sharp at its edges within a pixel or
two, and stands on ground that varies less than the letter stands out. Straight strokes and dense characters pass only
beside another letter.

Limits: letters that stand out by less than an eighth of the image's range are missed (white text on a white abdomen),
as are characters over a tenth of the image tall, or joined with a bone's edge. On CT, MR and ultrasound, fine sharp
structures can pass for letters: look at the mask before using it there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.filters import apply_hysteresis_threshold
from skimage.measure import label, regionprops

from cam_core.resample import resize

WORKING_SIDE = 1024
"""Pixels of the longer side on which letters are looked for."""

STROKE_SHARE = 0.03
"""Strokes are thinner than this part of the longer side."""

LEAST_HEIGHT, MOST_HEIGHT, MOST_WIDTH = 0.01, 0.1, 0.3
"""Size of a character, or of several that touch, part of the longer side."""

LEAST_PIXELS, LEAST_EXTENT = 8, 5
"""What is smaller on the working grid is a speck."""

FAINT, STRONG = 0.125, 0.25
"""How far ink stands out, part of the image's range: throughout, and somewhere."""

SHARP = 0.6
"""Least change within a pixel to each side of an edge, part of the contrast."""

UNEVEN, ROUGH = 0.4, 0.7
"""Most spread of the letter's own grey and of its ground, part of the contrast."""

STROKES, BESIDE_STROKES = 3.0, 1.5
"""Least area over the square of the thickest stroke, alone and beside a letter; 0.8 for a disc, 1 for a square."""

STRAIGHT = 0.25
"""Least ratio of the minor to the major axis for a letter that stands alone."""


@dataclass(frozen=True, kw_only=True)
class _Glyph:
    """A part of the ink with what tells a letter: box is top, left, bottom, right."""

    box: tuple[int, int, int, int]
    sharp: float
    uneven: float
    rough: float
    strokes: float
    roundness: float

    @property
    def height(self) -> int:
        return self.box[2] - self.box[0]

    @property
    def drawn(self) -> bool:
        """Whether it can be a letter's, alone or beside one."""
        return self.sharp >= SHARP and self.rough <= ROUGH and self.strokes >= BESIDE_STROKES

    @property
    def alone(self) -> bool:
        """Whether it is a letter without any beside it."""
        return self.drawn and self.strokes >= STROKES and self.roundness >= STRAIGHT and self.uneven <= UNEVEN


def lettering_mask(pixels: NDArray[np.float32]) -> NDArray[np.bool_]:
    """The boxes around letters, half a letter's height wider on each side; empty where there are none.

    Parameters
    ----------
    pixels : (H, W) or (D, H, W) float32, 0 black .. 1 white
        Of a volume every slice is looked at by itself.
    """
    if pixels.ndim == 3:
        return np.stack([lettering_mask(plane) for plane in pixels])
    plane = _scaled(pixels)
    mask = np.zeros(pixels.shape, dtype=np.bool_)
    if plane is None:
        return mask
    rows, columns = pixels.shape[0] / plane.shape[0], pixels.shape[1] / plane.shape[1]
    for glyph in _letters(_glyphs(plane) + _glyphs(1 - plane)):
        top, left, bottom, right = glyph.box
        room = glyph.height / 2
        mask[
            max(int((top - room) * rows), 0) : int(np.ceil((bottom + room) * rows)),
            max(int((left - room) * columns), 0) : int(np.ceil((right + room) * columns)),
        ] = True
    return mask


def _scaled(pixels: NDArray[np.float32]) -> NDArray[np.float64] | None:
    """The image on the working grid, its range 0..1 but for the outermost thousandths; None when it is flat."""
    factor = min(WORKING_SIDE / max(pixels.shape), 1.0)
    rows, columns = (max(round(size * factor), 1) for size in pixels.shape)
    plane = resize(np.ascontiguousarray(pixels, dtype=np.float32), (rows, columns)).astype(np.float64)
    low, high = np.percentile(plane, (0.1, 99.9))
    return np.clip((plane - low) / (high - low), 0.0, 1.0) if high > low else None


def _glyphs(plane: NDArray[np.float64]) -> list[_Glyph]:
    """Bright parts of the size of characters."""
    side = max(plane.shape)
    reach = max(round(STROKE_SHARE * side), LEAST_EXTENT)
    hat = plane - ndimage.grey_opening(plane, size=(reach, reach), mode="nearest")
    ink = apply_hysteresis_threshold(hat, FAINT, STRONG)  # type: ignore[no-untyped-call]
    change = ndimage.maximum_filter(plane, 3) - ndimage.minimum_filter(plane, 3)
    ground = ~ndimage.binary_dilation(ink, iterations=2)
    parts = regionprops(label(ink, connectivity=2))  # type: ignore[no-untyped-call]
    return [_glyph(part, plane, hat, change, ground) for part in parts if _has_size(part, side)]


def _has_size(part: Any, side: int) -> bool:
    """Whether a part, as scikit-image gives it, is as large as a character or a few."""
    height, width = part.bbox[2] - part.bbox[0], part.bbox[3] - part.bbox[1]
    least = max(LEAST_HEIGHT * side, LEAST_EXTENT)
    return bool(
        part.area >= LEAST_PIXELS
        and max(height, width) >= least
        and height <= MOST_HEIGHT * side
        and width <= MOST_WIDTH * side
    )


def _glyph(
    part: Any,
    plane: NDArray[np.float64],
    hat: NDArray[np.float64],
    change: NDArray[np.float64],
    ground: NDArray[np.bool_],
) -> _Glyph:
    top, left, bottom, right = part.bbox
    inside, window = part.image, (slice(top, bottom), slice(left, right))
    framed = np.pad(inside, 1)
    edge = inside & ~ndimage.binary_erosion(framed)[1:-1, 1:-1]
    out = hat[window][inside]
    contrast = float(np.median(out))
    grey = plane[window][inside][out >= contrast]
    room = max((bottom - top) // 2, 4)
    around = (slice(max(top - room, 0), bottom + room), slice(max(left - room, 0), right + room))
    return _Glyph(
        box=(top, left, bottom, right),
        sharp=float(np.median(change[window][edge])) / contrast,
        uneven=_spread(grey, 10) / contrast,
        rough=_spread(plane[around][ground[around]], 16) / 2 / contrast,
        strokes=float(part.area) / (4 * float(ndimage.distance_transform_edt(framed).max()) ** 2),
        roundness=float(part.axis_minor_length) / float(part.axis_major_length),
    )


def _spread(values: NDArray[np.float64], percent: float) -> float:
    """Distance of a low and the opposite high percentile; 0 for no values."""
    if not values.size:
        return 0.0
    low, high = np.percentile(values, (percent, 100 - percent))
    return float(high - low)


def _letters(glyphs: list[_Glyph]) -> list[_Glyph]:
    """Those that are letters by themselves, and what is drawn within a letter's height of one and about as tall."""
    sure = [glyph for glyph in glyphs if glyph.alone]
    beside = [one for one in glyphs if one.drawn and not one.alone and any(_beside(one, other) for other in sure)]
    return sure + beside


def _beside(glyph: _Glyph, letter: _Glyph) -> bool:
    room = letter.height
    one, other = glyph.box, letter.box
    near = all(one[i] - room < other[i + 2] and other[i] - room < one[i + 2] for i in (0, 1))
    return near and glyph.height <= 1.5 * letter.height
