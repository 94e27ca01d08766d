"""Noisy linear imputation: cells filled in from those around them; knows no map and no model.

Rong et al., "A Consistent and Efficient Evaluation Strategy for Attribution Methods" (ICML 2022): a missing cell is the
weighted mean of its neighbours, of which some may be missing too, so that all of them solve one linear system. With
weights 1/6 beside and 1/12 across, as published for pictures; that is one over the squared distance, which carries on
to three dimensions. At the border the neighbours that exist share the weight.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

NOISE_SHARE = 0.01
"""Standard deviation of the noise, part of the channel's own: it hides that a cell was filled in."""

TOLERANCE = 1e-5
"""Relative residual of the solution; what is left of the error is far under the noise."""

MOST_ROUNDS = 100_000


@dataclass(frozen=True, kw_only=True, eq=False)
class Neighbourhood:
    """Which cells of a grid are neighbours, and how much they count.

    Attributes
    ----------
    weights : (n, n) sparse float64, symmetric
    degree : (n,) float64
        Sum of each cell's weights.
    """

    weights: sparse.csr_array
    degree: NDArray[np.float64]


def neighbourhood(grid: tuple[int, ...]) -> Neighbourhood:
    """Neighbours beside and across on a grid of any number of dimensions, one over the squared distance each."""
    index = np.arange(int(np.prod(grid))).reshape(grid)
    parts = []
    for offset in product((-1, 0, 1), repeat=len(grid)):
        if not any(offset):
            continue
        here = index[tuple(slice(max(0, -o), n - max(0, o)) for o, n in zip(offset, grid, strict=True))].ravel()
        there = index[tuple(slice(max(0, o), n - max(0, -o)) for o, n in zip(offset, grid, strict=True))].ravel()
        parts.append((np.full(here.size, 1.0 / sum(o * o for o in offset)), here, there))
    values, rows, columns = (np.concatenate(column) for column in zip(*parts, strict=True))
    weights = sparse.csr_array((values, (rows, columns)), shape=(index.size, index.size))
    return Neighbourhood(weights=weights, degree=np.asarray(weights.sum(axis=1)).ravel())


def impute(
    image: NDArray[np.float32], gone: NDArray[np.bool_], around: Neighbourhood, source: np.random.Generator
) -> NDArray[np.float32]:
    """Fill the missing cells of an image from the others, with noise.

    Parameters
    ----------
    image : (C, *grid) float32
    gone : (*grid) bool
        Must not cover the grid.
    around : Neighbourhood
        Of the grid.
    source : numpy.random.Generator

    Returns
    -------
    (C, *grid) float32
    """
    filled = image.astype(np.float64).reshape(len(image), -1)
    lost, kept = np.flatnonzero(gone), np.flatnonzero(~gone)
    if lost.size and kept.size:
        rows = around.weights[lost]
        system = (sparse.diags_array(around.degree[lost]) - rows[:, lost]).tocsr()
        known = rows[:, kept]
        for channel in filled:
            noise = NOISE_SHARE * channel.std() * source.standard_normal(lost.size)
            channel[lost] = _solved(system, known @ channel[kept], around.degree[lost]) + noise
    return filled.reshape(image.shape).astype(np.float32)


def _solved(system: sparse.csr_array, right: NDArray[np.float64], diagonal: NDArray[np.float64]) -> NDArray[np.float64]:
    """Solution of a symmetric positive definite system by conjugate gradients, preconditioned with its diagonal.

    Written out because scipy's takes its inner products from BLAS: on a busy machine its threads make that twenty times
    slower, and the last digits depend on their number.
    """
    solution = np.zeros_like(right)
    rest = right.copy()
    step = rest / diagonal
    product = _inner(rest, step)
    goal = TOLERANCE**2 * _inner(right, right)
    for _ in range(MOST_ROUNDS):
        if _inner(rest, rest) <= goal:
            return solution
        image = system @ step
        length = product / _inner(step, image)
        solution += length * step
        rest -= length * image
        scaled = rest / diagonal
        before, product = product, _inner(rest, scaled)
        step = scaled + (product / before) * step
    raise ArithmeticError(f"the imputation of {right.size} cells did not converge in {MOST_ROUNDS} rounds")


def _inner(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    return float(np.einsum("i,i", first, second))
