"""Where the body is on an image, found from its pixels alone; knows no header, no model and no map.

Made for projection radiographs and sections of CT. In doubt it says body: a map in the lung must not count as
outside.

1. Rows and columns at the edge that have one extreme value all along are shutter or padding and are cut away.
2. Air is what is darker than the lower part of the dark class (Otsu's method, in three classes and then within the
   darkest) and hangs together with the edge of what remains. A lung that reaches the edge is taken for air here.
3. Of the rest the largest connected part stays, after an opening that cuts off table, shutter and letters.
4. What has body on both sides, along its row or along its column, is body: that brings back the lungs.

Limits: air between arm and trunk or between the legs counts as body; a small field within the body that has lung or air
along a whole side is cut off there; dark muscle at the edge of an MR image may be lost; oblique or grey shutters stay
unless the opening parts them from the body.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.filters import threshold_multiotsu, threshold_otsu
from skimage.transform import resize as skimage_resize

from cam_core.resample import resize

WORKING_SIDE = 256
"""Pixels of the longer side on which the body is looked for."""

FLAT = 0.03
"""Part of the image's range in which a row or column counts as one value, and as extreme."""

SHUTTER_EDGE, SHUTTER_STEP = 0.1, 0.1
"""How soon (part of the axis) and by how much (part of the range) nearly all gets darker behind a white shutter."""

WHITE = 0.95
"""Part of the range from which on a line can be a white shutter's; its letters may be whiter."""

LEAST_FIELD = 8
"""Rows and columns that are never cut away."""

OPENING_SHARE = 0.02
"""What is thinner than twice this part of the field's shorter side does not hold parts of the body together."""


def body_mask(pixels: NDArray[np.float32]) -> NDArray[np.bool_] | None:
    """The pixels that show the body, or None where the image has nothing to tell it by.

    Parameters
    ----------
    pixels : (H, W) or (D, H, W) float32, 0 black .. 1 white
        Bright means dense. Of a volume every slice is looked at by itself, with the volume's thresholds.
    """
    stack = pixels if pixels.ndim == 3 else pixels[None]
    small = np.stack([_reduced(plane) for plane in stack])
    top, bottom, left, right = _field(small)
    field = ndimage.gaussian_filter(small[:, top:bottom, left:right], (0, 1, 1))
    level = _air_level(field)
    if level is None:
        return None
    mask = np.zeros(small.shape, dtype=np.bool_)
    mask[:, top:bottom, left:right] = [_body_of(plane, level) for plane in field]
    if not mask.any():
        return None
    full = np.stack([_enlarged(plane, pixels.shape[-2:]) for plane in mask])
    return full if pixels.ndim == 3 else full[0]


def _reduced(plane: NDArray[np.float32]) -> NDArray[np.float32]:
    factor = WORKING_SIDE / max(plane.shape)
    if factor >= 1:
        return plane.astype(np.float32)
    rows, columns = (max(round(size * factor), 1) for size in plane.shape)
    return resize(np.ascontiguousarray(plane, dtype=np.float32), (rows, columns))


def _enlarged(mask: NDArray[np.bool_], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    nearest = skimage_resize(mask.astype(np.float32), shape, order=1, anti_aliasing=False)  # type: ignore[no-untyped-call]
    full: NDArray[np.bool_] = nearest > 0.5
    return full


def _field(stack: NDArray[np.float32]) -> tuple[int, int, int, int]:
    """Rows and columns (top, bottom, left, right) that are left when shutters and padding are cut away."""
    plane = stack.max(axis=0)
    low, high = float(plane.min()), float(plane.max())
    top, bottom, left, right = 0, plane.shape[0], 0, plane.shape[1]
    cut = high > low
    while cut and bottom - top > LEAST_FIELD and right - left > LEAST_FIELD:
        field = (plane[top:bottom, left:right] - low) / (high - low)
        counts = [_shutter_lines(lines) for lines in (field, field[::-1], field.T, field.T[::-1])]
        top, bottom, left, right = top + counts[0], bottom - counts[1], left + counts[2], right - counts[3]
        cut = any(counts)
    return (top, bottom, left, right) if bottom > top and right > left else (0, plane.shape[0], 0, plane.shape[1])


def _shutter_lines(lines: NDArray[np.float32]) -> int:
    """How many lines (n, m) from the first on are shutter or padding: one extreme value all along, but for a marker.

    White ones only where nearly all of a line soon after is darker: else they are a body that is white all over.
    """
    first, middle, last = np.percentile(lines, (10, 50, 90), axis=1)
    dark = (last - first <= FLAT) & (middle <= FLAT)
    if dark[0]:
        return _run(dark)
    white = _run((last - first <= FLAT) & (middle >= WHITE))
    beyond = min(white + round(SHUTTER_EDGE * len(lines)), len(lines) - 1)
    return white if last[beyond] <= 1 - SHUTTER_STEP else 0


def _run(flags: NDArray[np.bool_]) -> int:
    """How many of the flags are set before the first that isn't."""
    return len(flags) if flags.all() else int(np.argmin(flags))


def _air_level(field: NDArray[np.float32]) -> float | None:
    """The value under which a pixel may be air; None for an image with fewer than three values."""
    if np.unique(field).size < 3:
        return None
    dark = field[field <= threshold_multiotsu(field, classes=3)[0]]  # type: ignore[no-untyped-call]
    return float(threshold_otsu(dark)) if np.unique(dark).size > 1 else float(dark.max())  # type: ignore[no-untyped-call]


def _body_of(field: NDArray[np.float32], level: float) -> NDArray[np.bool_]:
    """The body on one plane of the field."""
    dark, _ = ndimage.label(field <= level)
    at_edge = np.unique(np.concatenate([dark[0], dark[-1], dark[:, 0], dark[:, -1]]))
    tissue = ~np.isin(dark, at_edge[at_edge > 0])
    parts, count = ndimage.label(_opened(tissue))
    if not count:
        return np.zeros(field.shape, dtype=np.bool_)
    largest = parts == 1 + int(np.argmax(np.bincount(parts.ravel())[1:]))
    return _between(largest, 0) | _between(largest, 1)


def _opened(tissue: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Binary opening that takes the image to go on beyond its edge as it is there."""
    radius = max(round(OPENING_SHARE * min(tissue.shape)), 1)
    shape = ndimage.iterate_structure(ndimage.generate_binary_structure(2, 1), radius)
    opened = ndimage.binary_opening(np.pad(tissue, radius, mode="edge"), shape)
    inner: NDArray[np.bool_] = opened[radius:-radius, radius:-radius]
    return inner


def _between(mask: NDArray[np.bool_], axis: int) -> NDArray[np.bool_]:
    """Everything that has the mask on both sides along an axis, or is in it."""
    before = np.maximum.accumulate(mask, axis=axis)
    after = np.flip(np.maximum.accumulate(np.flip(mask, axis), axis=axis), axis)
    both: NDArray[np.bool_] = before & after
    return both
