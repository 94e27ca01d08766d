"""Where the cells of a feature layer look on the model's input; knows no runtime, only centroids measured by one.

Libraries assume that cell ``i`` is centred at ``(i + 0.5) * stride - 0.5``. With odd kernels and symmetric padding it
is centred at ``i * stride``; other paddings, even kernels and pooling give other offsets. So the centres are measured:
for a cell, the centroid of the squared gradient of its activations with respect to the input. That is a noisy number
on a trained model; where the whole field lies inside the input, its middle is an exact one, and it is taken when the
centroids don't contradict it.
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

FLATTEST = 0.2
"""Part of the assumed pitch that the line through centroids must rise by at least, where no field lies inside."""

EXACT_TOLERANCE = 0.02
"""Difference of a field's middle and its centroid that is allowed beyond the noise, part of the pitch."""


@dataclass(frozen=True, kw_only=True)
class Registration:
    """Centres of feature cells on the input grid: ``centre(i) = start + i * step`` on each axis.

    Attributes
    ----------
    start : (row, column) or (slice, row, column) float, input pixel index
        Centre of the first cell; 0.0 is the centre of the first pixel.
    step : one float an axis, input pixel
        Distance of neighbouring cells.
    measured : bool
        Whether it was measured on this model or assumed.
    """

    start: tuple[float, ...]
    step: tuple[float, ...]
    measured: bool


@dataclass(frozen=True, kw_only=True)
class Probe:
    """One measurement: which cell is to be probed with which seed."""

    cell: tuple[int, ...]
    seed: int


Fields = Callable[[Sequence[Probe]], NDArray[np.float64]]
"""Given probes, the fields of the cells' squared input gradients, (n, axes, 3), in input pixel index: for each axis the
centroid, the first and the last pixel; the latter are NaN where the field may go on beyond the input."""


def measure(fields: Fields, cells: Sequence[int], grid: Sequence[int]) -> Registration:
    """Fit the line of cell centres through probes of interior cells.

    Parameters
    ----------
    fields : callable
        Answers a list of probes; see `Fields`. NaN means that the cell didn't answer.
    cells : sequence of int, cell
        Size of the feature layer: rows and columns, with slices before them in three dimensions.
    grid : sequence of int, pixel
        Size of the model's input.

    Notes
    -----
    Cells near the border are left out: padding cuts their field and pulls the centroid inwards. So do fields that span
    the whole input (attention, gates by global averages): part of their energy lies about its middle. Both leave the
    centroid where it is for a cell that looks at the very middle of the input: the line is right there and only too
    flat. So the pitch is that of fields that lie inside the input, else that of cells which divide it evenly, if they
    do, and only then that of the centroids. Where every cell looks at everything, so that the line is flatter than
    `FLATTEST`, there is nothing to be measured, and the cells are taken to tile the input.
    """
    places = list(zip(*(_interior(count) for count in cells), strict=True))
    probes = [
        Probe(cell=place, seed=number * len(places) + index)
        for number in range(ROUNDS)
        for index, place in enumerate(places)
    ]
    found = fields(probes)
    lines = [
        _line([probe.cell[axis] for probe in probes], found[:, axis], count, size)
        for axis, (count, size) in enumerate(zip(cells, grid, strict=True))
    ]
    if any(line is None for line in lines):
        return library_registration(cells, grid)
    return Registration(
        start=tuple(line[0] for line in lines if line), step=tuple(line[1] for line in lines if line), measured=True
    )


def _interior(count: int) -> list[int]:
    """`INTERIOR_CELLS` cell indices from the middle half of an axis, symmetric about its middle."""
    first = count // 4
    return [round(place) for place in np.linspace(first, count - 1 - first, INTERIOR_CELLS)]


def _line(cells: list[int], fields: NDArray[np.float64], count: int, size: int) -> tuple[float, float] | None:
    """Start and step of one axis from probed cells and their fields (n, 3); None when they don't tell."""
    answered = np.isfinite(fields[:, 0])
    index, centre = np.asarray(cells, dtype=np.float64)[answered], fields[answered, 0]
    assumed = size / count
    if index.size == 0:
        return None
    middles = fields[answered, 1:].mean(axis=1)
    inside = np.isfinite(middles)
    slope = _slope(index, centre, assumed)
    if len(set(index[inside])) > 1:
        step = _pitch(_slope(index[inside], middles[inside], assumed))
    else:
        step = assumed if assumed.is_integer() else _pitch(slope)
    if not inside.any() and slope < FLATTEST * assumed:
        return None
    if not inside.any():
        middle = (size - 1) / 2
        return float(middle - step * (index.mean() + (middle - centre.mean()) / slope)), step
    return _agreed(centre - step * index, (middles - step * index)[inside], step), step


def _slope(index: NDArray[np.float64], centre: NDArray[np.float64], assumed: float) -> float:
    """That of the line through the points, by least squares; the assumed one through a single point."""
    spread = index - index.mean()
    power = float((spread**2).sum())
    return float((spread * centre).sum() / power) if power > 0 else assumed


def _pitch(slope: float) -> float:
    """The slope, or a whole number near it: of several the one with most twos in it, of which strides are made."""
    whole = range(max(1, round(slope / (1 + PITCH_TOLERANCE))), round(slope / (1 - PITCH_TOLERANCE)) + 1)
    near = [number for number in whole if abs(slope - number) <= PITCH_TOLERANCE * number]
    if not near:
        return slope
    return float(max(near, key=lambda number: (number & -number, -abs(slope - number))))


def _agreed(starts: NDArray[np.float64], middles: NDArray[np.float64], step: float) -> float:
    """The exact middle of the fields where the centroids allow it (three standard errors), else their mean."""
    mean = float(starts.mean())
    if not middles.size:
        return mean
    exact = float(np.median(middles))
    error = float(starts.std()) / np.sqrt(starts.size)
    return exact if abs(exact - mean) <= 3 * error + EXACT_TOLERANCE * step else mean


def library_registration(cells: Sequence[int], grid: Sequence[int]) -> Registration:
    """What ``interpolate(mode="bilinear", align_corners=False)`` assumes: cells tile the grid.  For comparison only."""
    steps = tuple(size / count for count, size in zip(cells, grid, strict=True))
    return Registration(start=tuple((step - 1) / 2 for step in steps), step=steps, measured=False)


def input_registration(grid: Sequence[int]) -> Registration:
    """That of a map whose cells are the input's own pixels."""
    return Registration(start=(0.0,) * len(grid), step=(1.0,) * len(grid), measured=True)


def cells_on_grid(values: NDArray[np.float32], registration: Registration, grid: Sequence[int]) -> NDArray[np.float32]:
    """Spread cell values (..., *cells) over the whole input grid, linearly between the cells' centres, edges held."""
    pixels = [np.arange(size, dtype=np.float64) for size in grid]
    return sample_linear(values, _in_cells(pixels, registration))


def cells_on_picture(
    values: NDArray[np.float32], registration: Registration, fit: Fit, shape: Sequence[int]
) -> NDArray[np.float32]:
    """Spread cell values (..., *cells) over a picture of `shape` that covers the source image; see `cells_on_grid`."""
    return sample_linear(values, cell_positions(registration, fit, shape))


def cell_positions(registration: Registration, fit: Fit, shape: Sequence[int]) -> list[NDArray[np.float64]]:
    """Where the pixel centres of a picture of `shape` that covers the source image lie among the cells, on each axis.

    Returns
    -------
    one (n,) float64 an axis, cell index (0.0 is the centre of the first cell, whatever the edges)
    """
    return _in_cells(grid_positions(fit, shape), registration)


def _in_cells(pixels: Sequence[NDArray[np.float64]], registration: Registration) -> list[NDArray[np.float64]]:
    """Input pixel indices of each axis as cell indices."""
    lines = zip(pixels, registration.start, registration.step, strict=True)
    return [(one - start) / step for one, start, step in lines]


def gradient_field(gradient: NDArray[np.floating]) -> NDArray[np.float64]:
    """Centroid, first and last pixel (axes, 3) of a squared input gradient (C, *grid); see `Fields`."""
    energy = np.square(gradient.astype(np.float64)).sum(axis=0)
    others = [tuple(other for other in range(energy.ndim) if other != axis) for axis in range(energy.ndim)]
    return np.stack([_extent(energy.sum(axis=rest)) for rest in others])


def _extent(energy: NDArray[np.float64]) -> NDArray[np.float64]:
    total = energy.sum()
    if not np.isfinite(total) or total <= 0:
        return np.full(3, np.nan)
    reached = np.flatnonzero(energy > 0)
    first, last = float(reached[0]), float(reached[-1])
    if first == 0 or last == energy.size - 1:
        first = last = np.nan
    return np.array([(energy * np.arange(energy.size)).sum() / total, first, last])
