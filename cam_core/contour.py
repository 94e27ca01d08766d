"""Closed lines around the parts of a plane that reach a level; knows no maps."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from skimage.measure import approximate_polygon, find_contours

SIMPLIFICATION = 0.15
"""Largest distance between a line and its simplified form, pixel of the plane."""

SMALLEST_AREA = 0.5
"""A line that encloses less becomes the box of the pixels it runs through, pixel of the plane."""

UNDER = 1 - 1e-9
"""Lines run this much under the level, because pixels that just reach it are inside."""


def outer_lines(values: NDArray[np.float32], level: float) -> list[NDArray[np.float64]]:
    """The outer lines of all parts of a plane that reach a level, largest first; holes have none.

    Parameters
    ----------
    values : (h, w) float32
    level : float, above 0
        Lines run between pixels below it and pixels that reach it; beyond the plane everything is 0.

    Returns
    -------
    list of (N, 2) float64
        x and y of closed lines (first point equals last, N >= 4) within the plane's outer edges; the centre of pixel
        ``i`` is at ``i + 0.5``.
    """
    padded = np.pad(values.astype(np.float64), 1)
    lines = find_contours(padded, level * UNDER, fully_connected="high")  # type: ignore[no-untyped-call]
    areas = [enclosed(line) for line in lines]
    order = sorted((i for i, area in enumerate(areas) if area > 0), key=lambda i: -areas[i])
    return [_finished(lines[i], areas[i], values.shape) for i in order]


def _finished(line: NDArray[np.float64], area: float, shape: tuple[int, ...]) -> NDArray[np.float64]:
    if area < SMALLEST_AREA:
        (top, left), (bottom, right) = line.min(axis=0) - 0.5, line.max(axis=0) + 0.5
        line = np.array([[top, left], [top, right], [bottom, right], [bottom, left], [top, left]])
    simple = approximate_polygon(line, SIMPLIFICATION)  # type: ignore[no-untyped-call]
    chosen = simple if len(simple) >= 4 else line
    points = np.clip(chosen[:, ::-1] - 0.5, 0.0, (shape[1], shape[0]))
    points[-1] = points[0]
    return np.ascontiguousarray(points)


def enclosed(line: NDArray[np.float64]) -> float:
    """Area inside a closed line (N, 2) of row and column; negative for the line around a hole, as `find_contours` runs.

    The shoelace formula, about the line's middle: a small line far from the origin keeps its sign.
    """
    rows, columns = (line - line.mean(axis=0)).T
    return float(np.dot(rows[1:], columns[:-1]) - np.dot(rows[:-1], columns[1:])) / 2
