"""Separable resampling of planes and volumes with explicit sample positions; knows no images, models or maps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import sparse


def sample_linear(values: NDArray[np.float32], positions: Sequence[NDArray[np.float64]]) -> NDArray[np.float32]:
    """Read values between their cells, linearly along each of the last axes, holding the edge value outside.

    Each output is built from the same two products per axis whatever the number of threads, so it is bit-identical on
    every run.

    Parameters
    ----------
    values : (..., *cells) float32
        As many cell axes as there are positions: two for planes (bilinear), three for volumes (trilinear).
    positions : sequence of (n,) float64, cell index
        Where to read along each of those axes; 0.0 is the centre of the first cell.

    Returns
    -------
    (..., *n) float32
    """
    sampled = values
    for axis, position in zip(range(-len(positions), 0), positions, strict=True):
        low, high, part = _neighbours(position, sampled.shape[axis])
        part = part.reshape(-1, *[1] * (-axis - 1))
        before: NDArray[np.float32] = np.take(sampled, low, axis=axis)
        before *= 1 - part
        after = np.take(sampled, high, axis=axis)
        after *= part
        before += after
        sampled = before
    return sampled


def _neighbours(
    positions: NDArray[np.float64], count: int
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    held = np.clip(positions, 0.0, count - 1.0)
    low = np.minimum(np.floor(held).astype(np.intp), max(count - 2, 0))
    high = np.minimum(low + 1, count - 1)
    return low, high, (held - low).astype(np.float32)


def resize(values: NDArray[np.float32], shape: Sequence[int]) -> NDArray[np.float32]:
    """Resize a plane or a volume with a triangle filter: linear when enlarging, antialiased when reducing.

    On planes the same arithmetic as ``torch.nn.functional.interpolate(mode="bilinear", antialias=True,
    align_corners=False)``.

    Parameters
    ----------
    values : (H, W) or (D, H, W) float32
    shape : sequence of int, pixel
        Size of the result, one for each axis.
    """
    sized = values
    for axis, size in enumerate(shape):
        front = np.moveaxis(sized, axis, 0)
        rest = front.shape[1:]
        weighted = _triangle_weights(front.shape[0], size) @ front.reshape(front.shape[0], -1)
        sized = np.moveaxis(weighted.reshape(size, *rest), 0, axis)
    return np.ascontiguousarray(sized)


def _triangle_weights(source: int, target: int) -> sparse.csr_matrix:
    """Weights (target, source) of a triangle filter whose half width is the larger of one pixel and the reduction."""
    ratio = source / target
    reach = max(ratio, 1.0)
    centres = (np.arange(target) + 0.5) * ratio
    first = np.floor(centres - reach).astype(np.int64)
    columns = first[:, None] + np.arange(int(np.ceil(2 * reach)) + 2)[None, :]
    weights = np.clip(1.0 - np.abs(columns + 0.5 - centres[:, None]) / reach, 0.0, None)
    weights[(columns < 0) | (columns >= source)] = 0.0
    weights /= weights.sum(axis=1, keepdims=True)
    rows = np.broadcast_to(np.arange(target)[:, None], columns.shape)
    used = weights > 0
    entries = (weights[used].astype(np.float32), (rows[used], columns[used]))
    return sparse.csr_matrix(entries, shape=(target, source), dtype=np.float32)
