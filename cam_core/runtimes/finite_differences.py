"""Fields of cells' input gradients from forward passes alone, for models that can't be differentiated."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from cam_core.registration import Probe

STRIPS = 80
"""Most strips per axis."""

STEP = 0.05
"""Size of the change, in deviations of the noise input."""

BATCH = 16
"""Changed inputs per pass."""

ROUNDS = 3
"""Noise inputs."""

SILENCE = 1e-8
"""Part of the greatest energy below which an answer is rounding."""


def difference_fields(
    activations: Callable[[NDArray[np.float32]], NDArray[np.float32]], shape: tuple[int, ...], probes: Sequence[Probe]
) -> NDArray[np.float64]:
    """Fields (n, axes, 3) of the probed cells, as `cam_core.registration.measure` asks for them.

    Their first and last pixels are those of the strips that they reach.

    A strip of rows (or columns) of a noise input is changed by random signs; the expected square of a cell's answer is
    the sum of its squared gradient over the strip, so the answers of all strips give the marginal of the squared
    gradient along the axis.

    Parameters
    ----------
    activations : callable
        From a batch (N, C, *grid) to (N, Ch, *cells).
    shape : (1, C, *grid)
    probes : sequence of Probe
        Their seeds are not used: all cells are read from the same passes. Each time that a cell is asked for again, it
        is read from the next noise input, so that its answers scatter as much as the noise makes them.
    """
    axes = len(shape) - 2
    energy = [_marginals(activations, shape, 2 + axis) for axis in range(axes)]
    found = np.full((len(probes), axes, 3), np.nan)
    asked: Counter[tuple[int, ...]] = Counter()
    for index, probe in enumerate(probes):
        for axis, (weights, edges) in enumerate(energy):
            each = np.moveaxis(weights, (0, 1), (-2, -1))[probe.cell]
            found[index, axis] = _extent(each[asked[probe.cell] % ROUNDS], each.sum(axis=0), edges)
        asked[probe.cell] += 1
    return found


def _extent(own: NDArray[np.float64], summed: NDArray[np.float64], edges: NDArray[np.intp]) -> NDArray[np.float64]:
    """Centroid of a cell's energy on one input and first and last pixel of that on all, in strips between `edges`."""
    total = own.sum()
    if total <= 0:
        return np.full(3, np.nan)
    reached = np.flatnonzero(summed > SILENCE * summed.max())
    first, last = float(edges[reached[0]]), float(edges[reached[-1] + 1] - 1)
    if reached[0] == 0 or reached[-1] == own.size - 1:
        first = last = np.nan
    return np.array([(own * (edges[:-1] + edges[1:] - 1) / 2).sum() / total, first, last])


def _marginals(
    activations: Callable[[NDArray[np.float32]], NDArray[np.float32]], shape: tuple[int, ...], axis: int
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Energy (round, strip, *cells) of every cell's answer to each strip along an input axis, and the strips' edges."""
    edges = np.linspace(0, shape[axis], min(STRIPS, shape[axis]) + 1).round().astype(int)
    energies = []
    for number in range(ROUNDS):
        source = np.random.default_rng(number)
        noise = source.standard_normal(shape).astype(np.float32)
        signs = (STEP * source.choice((-1.0, 1.0), shape)).astype(np.float32)
        still = activations(noise)
        answers = []
        for first in range(0, len(edges) - 1, BATCH):
            strips = list(zip(edges[first : first + BATCH], edges[first + 1 : first + BATCH + 1], strict=False))
            answers.append(activations(_changed(noise, signs, axis, strips)) - still)
        energies.append(np.square(np.concatenate(answers).astype(np.float64)).sum(axis=1))
    return np.stack(energies), edges


def _changed(
    noise: NDArray[np.float32], signs: NDArray[np.float32], axis: int, strips: Sequence[tuple[int, int]]
) -> NDArray[np.float32]:
    batch = np.repeat(noise, len(strips), axis=0)
    for index, (first, last) in enumerate(strips):
        strip = (*[slice(None)] * (axis - 1), slice(first, last))
        batch[index][strip] += signs[0][strip]
    return batch
