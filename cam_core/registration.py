"""Where the cells of a feature layer look on the model's input; knows no runtime, only centroids measured by one.

Libraries assume that cell ``i`` is centred at ``(i + 0.5) * stride - 0.5``. With odd kernels and symmetric padding it
is centred at ``i * stride``; other paddings, even kernels and pooling give other offsets. So the centres are measured:
for a cell, the centroid of the squared gradient of its activations with respect to the input.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cam_core.image import Fit, grid_positions
from cam_core.resample import sample_linear

INTERIOR_CELLS = 5
"""Positions per axis at which the centre is measured."""

ROUNDS = 3
"""Random inputs per position."""

PITCH_TOLERANCE = 0.05
"""A pitch this near (relatively) to a whole number of pixels is taken as that number: strides are whole."""


@dataclass(frozen=True, kw_only=True)
class Registration:
    """Centres of feature cells on the input grid: ``centre(i) = start + i * step`` on each axis.

    Attributes
    ----------
    start : (row, column) float, input pixel index
        Centre of cell (0, 0); 0.0 is the centre of the first pixel.
    step : (row, column) float, input pixel
        Distance of neighbouring cells.
    measured : bool
        Whether it was measured on this model or assumed.
    """

    start: tuple[float, float]
    step: tuple[float, float]
    measured: bool


@dataclass(frozen=True, kw_only=True)
class Probe:
    """One measurement: which cell is to be probed with which seed."""

    cell: tuple[int, int]
    seed: int


Centroids = Callable[[Sequence[Probe]], NDArray[np.float64]]
"""Given probes, the centroids (n, 2) of the cells' squared input gradients, in input pixel index (row, column)."""


def measure(centroids: Centroids, cells: tuple[int, int], grid: tuple[int, int]) -> Registration:
    """Fit the line of cell centres through probes of interior cells.

    Parameters
    ----------
    centroids : callable
        Answers a list of probes; see `Centroids`. A row of NaN means that the cell didn't answer.
    cells : (rows, columns), cell
        Size of the feature layer.
    grid : (rows, columns), pixel
        Size of the model's input.

    Notes
    -----
    Cells near the border are left out: padding cuts their field and pulls the centroid inwards. What little of that
    remains is symmetric about the middle, so a whole pitch is restored by `PITCH_TOLERANCE` and the start refitted.
    """
    places = list(zip(_interior(cells[0]), _interior(cells[1]), strict=True))
    probes = [Probe(cell=place, seed=number * len(places) + index)
              for number in range(ROUNDS) for index, place in enumerate(places)]
    found = centroids(probes)
    lines = [_line([probe.cell[axis] for probe in probes], found[:, axis], cells[axis], grid[axis]) for axis in (0, 1)]
    return Registration(start=(lines[0][0], lines[1][0]), step=(lines[0][1], lines[1][1]),
                        measured=bool(np.isfinite(found).all(axis=1).any()))


def _interior(count: int) -> list[int]:
    """`INTERIOR_CELLS` cell indices from the middle half of an axis, symmetric about its middle."""
    first = count // 4
    return [round(place) for place in np.linspace(first, count - 1 - first, INTERIOR_CELLS)]


def _line(cells: list[int], centres: NDArray[np.float64], count: int, size: int) -> tuple[float, float]:
    answered = np.isfinite(centres)
    index, centre = np.asarray(cells, dtype=np.float64)[answered], centres[answered]
    assumed = size / count
    if index.size == 0:
        return (assumed - 1) / 2, assumed
    spread = index - index.mean()
    power = float((spread**2).sum())
    step = float((spread * centre).sum() / power) if power > 0 else assumed
    whole = round(step)
    if whole >= 1 and abs(step - whole) <= PITCH_TOLERANCE * whole:
        step = float(whole)
    return float(centre.mean() - step * index.mean()), step


def library_registration(cells: tuple[int, int], grid: tuple[int, int]) -> Registration:
    """What ``interpolate(mode="bilinear", align_corners=False)`` assumes: cells tile the grid.  For comparison only."""
    steps = (grid[0] / cells[0], grid[1] / cells[1])
    return Registration(start=((steps[0] - 1) / 2, (steps[1] - 1) / 2), step=steps, measured=False)


def cells_on_grid(values: NDArray[np.float32], registration: Registration, grid: tuple[int, int]
                  ) -> NDArray[np.float32]:
    """Spread cell values (..., h, w) over the whole input grid, linearly between the cells' centres, edges held."""
    rows = (np.arange(grid[0], dtype=np.float64) - registration.start[0]) / registration.step[0]
    columns = (np.arange(grid[1], dtype=np.float64) - registration.start[1]) / registration.step[1]
    return sample_linear(values, rows, columns)


def cells_on_picture(values: NDArray[np.float32], registration: Registration, fit: Fit, shape: tuple[int, int]
                     ) -> NDArray[np.float32]:
    """Spread cell values (..., h, w) over a picture of `shape` that covers the source image; see `cells_on_grid`."""
    rows, columns = grid_positions(fit, shape)
    return sample_linear(values, (rows - registration.start[0]) / registration.step[0],
                         (columns - registration.start[1]) / registration.step[1])


def squared_centroid(gradient: NDArray[np.floating]) -> NDArray[np.float64]:
    """Centroid (row, column) of a squared input gradient (C, H, W); NaN where it is zero everywhere."""
    energy = np.square(gradient.astype(np.float64)).sum(axis=0)
    total = energy.sum()
    if not np.isfinite(total) or total <= 0:
        return np.full(2, np.nan)
    return np.array([(energy.sum(axis=1) * np.arange(energy.shape[0])).sum() / total,
                     (energy.sum(axis=0) * np.arange(energy.shape[1])).sum() / total])
