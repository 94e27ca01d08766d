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
from itertools import product

import numpy as np
from numpy.typing import NDArray

from cam_core.errors import UnusableTargetLayer
from cam_core.image import Fit, grid_positions
from cam_core.resample import sample_linear

ROUNDS = 3
"""Random inputs per probed cell."""

PITCH_TOLERANCE = 0.05
"""A pitch this near (relatively) to a whole number of pixels is taken as that number: strides are whole."""

FLATTEST = 0.2
"""Part of the assumed pitch that the line through centroids must rise by at least, where no field lies inside."""

EXACT_TOLERANCE = 0.02
"""Difference of a field's middle and its centroid that is allowed beyond the noise, part of the pitch."""

ASIDE = 0.5
"""Difference of two centres whose cells have the same index on that axis, assumed pitches, from which they lie on no
grid. It is below 0.4 in networks of random weights; a wrong grid of as many tokens gives 0.5 at least."""

STRAIGHT = 0.25
"""Distance of a field's middle from the line through all, part of the assumed pitch, up to which extents are exact."""

BENT = 0.2
"""Distance of a centre from the line through all, part of the axis, from which the cells lie on no grid. Attention
within windows bends the line by less."""

SURE = 6.0
"""Standard errors that either must exceed, so that cells which look at everything aren't taken for misplaced ones."""

OFF_GRID = (
    "can't be placed: its cells do not lie on the grid that the card declares: "
    "check activations.layout, token_grid and prefix_tokens"
)


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


def measure(fields: Fields, cells: Sequence[int], grid: Sequence[int], layer: str = "") -> Registration:
    """Fit the line of cell centres through probes of interior cells.

    Parameters
    ----------
    fields : callable
        Answers a list of probes; see `Fields`. NaN means that the cell didn't answer.
    cells : sequence of int, cell
        Size of the feature layer: rows and columns, with slices before them in three dimensions.
    grid : sequence of int, pixel
        Size of the model's input.
    layer : str
        Its name, for messages.

    Raises
    ------
    UnusableTargetLayer
        When the cells surely don't lie on a grid of these axes, as where the layer is laid out otherwise.

    Notes
    -----
    Cells near the border are left out: padding cuts their field and pulls the centroid inwards. So do fields that span
    the whole input (attention, gates by global averages): part of their energy lies about its middle. Both leave the
    centroid where it is for a cell that looks at the very middle of the input: the line is right there and only too
    flat. So the pitch is that of fields that lie inside the input, else that of cells which divide it evenly, if they
    do, and only then that of the centroids. Where every cell looks at everything, so that the line is flatter than
    `FLATTEST`, there is nothing to be measured, and the cells are taken to tile the input.
    """
    places = _places(cells)
    probes = [
        Probe(cell=place, seed=number * len(places) + index)
        for number in range(ROUNDS)
        for index, place in enumerate(places)
    ]
    found = fields(probes)
    indices = np.array([probe.cell for probe in probes], dtype=np.float64)
    sizes = list(enumerate(zip(cells, grid, strict=True)))
    if any(_off_grid(indices, found[:, axis, 0], axis, count, size) for axis, (count, size) in sizes):
        raise UnusableTargetLayer(layer, OFF_GRID)
    lines = [_line(indices[:, axis], found[:, axis], count, size) for axis, (count, size) in sizes]
    if any(line is None for line in lines):
        return library_registration(cells, grid)
    return Registration(
        start=tuple(line[0] for line in lines if line), step=tuple(line[1] for line in lines if line), measured=True
    )


def _places(cells: Sequence[int]) -> list[tuple[int, ...]]:
    """Corners of the middle half, so many that all pairs of axes are crossed, and two cells between them.

    Each axis' indices are symmetric about its middle.
    """
    outer = [(count // 4, count - 1 - count // 4) for count in cells]
    thirds = [round((last - first) / 3) for first, last in outer]
    inner = [tuple(first + third for (first, _), third in zip(outer, thirds, strict=True))]
    inner.append(tuple(last - third for (_, last), third in zip(outer, thirds, strict=True)))
    sides = [side for side in product((0, 1), repeat=len(cells)) if len(cells) < 3 or sum(side) % 2 == 0]
    return [tuple(ends[one] for ends, one in zip(outer, side, strict=True)) for side in sides] + inner


def _off_grid(indices: NDArray[np.float64], centroids: NDArray[np.float64], axis: int, count: int, size: int) -> bool:
    """Whether centroids (n,) on one axis don't follow the cells' indices (n, axes) on that axis, beyond the noise.

    The noise is the scatter of the same cell's centroids over random inputs.
    """
    answered = np.isfinite(centroids)
    places, which, times = np.unique(indices[answered], axis=0, return_inverse=True, return_counts=True)
    freedom = int(answered.sum()) - len(places)
    if freedom <= 0:
        return False
    means = np.bincount(which.reshape(-1), centroids[answered]) / times
    noise = float(np.sqrt(np.square(centroids[answered] - means[which.reshape(-1)]).sum() / freedom))
    error = noise / np.sqrt(times)
    own, assumed = places[:, axis], size / count
    aside = np.abs(means[:, None] - means) * (own[:, None] == own)
    bent = np.abs(means - means.mean() - _slope(own, means, 0.0) * (own - own.mean()))
    misplaced = (aside >= ASIDE * assumed) & (aside > SURE * np.hypot(error[:, None], error))
    off_line = (bent >= BENT * size) & (bent > SURE * error)
    return bool(misplaced.any() or off_line.any())


def _line(index: NDArray[np.float64], fields: NDArray[np.float64], count: int, size: int) -> tuple[float, float] | None:
    """Start and step of one axis from probed cells' indices (n,) and their fields (n, 3); None if they don't tell."""
    answered = np.isfinite(fields[:, 0])
    index, centre = index[answered], fields[answered, 0]
    assumed = size / count
    if len(set(index)) < min(count, 2):
        return None  # a single cell that answers is no line
    middles = fields[answered, 1:].mean(axis=1)
    inside = np.isfinite(middles)
    slope = _slope(index, centre, assumed)
    if len(set(index[inside])) > 1:
        step = _exact_pitch(index[inside], centre[inside], middles[inside], assumed)
    else:
        step = assumed if assumed.is_integer() else _pitch(slope)
    if not inside.any() and slope < FLATTEST * assumed:
        return None
    if not inside.any():
        middle = (size - 1) / 2
        return float(middle - step * (index.mean() + (middle - centre.mean()) / slope)), step
    return _agreed(centre - step * index, (middles - step * index)[inside], step), step


def _exact_pitch(
    index: NDArray[np.float64], centre: NDArray[np.float64], middles: NDArray[np.float64], assumed: float
) -> float:
    """That of the fields' middles where they lie on a line and the centroids allow it (three standard errors).

    Extents alone mislead where neighbours' fields differ in size or position (upsampling, windows). Then it is the
    assumed pitch, if whole and within half a cell of the centroids over the probed cells, else the centroids' own.
    """
    exact, slope = _slope(index, middles, assumed), _slope(index, centre, assumed)
    spread = index - index.mean()
    off = middles - middles.mean() - exact * spread
    bent = max(abs(float(np.median(off[index == one]))) for one in set(index))
    reach = float(np.abs(spread).max())
    rest = centre - centre.mean() - slope * spread
    error = float(np.sqrt(np.square(rest).sum() / max(index.size - 2, 1) / np.square(spread).sum()))
    agrees = abs(exact - slope) * reach <= 3 * error * reach + EXACT_TOLERANCE * assumed
    if agrees and bent <= STRAIGHT * assumed:
        return _pitch(exact)
    return assumed if assumed.is_integer() and abs(assumed - slope) * reach <= assumed / 2 else _pitch(slope)


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
