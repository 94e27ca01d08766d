"""Separable resampling of planes with explicit sample positions; knows no images, models or maps."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse


def sample_linear(
    planes: NDArray[np.float32], rows: NDArray[np.float64], columns: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Read planes between their cells, linearly, holding the edge value outside.

    Each output is built from the same two products whatever the number of threads, so it is bit-identical on every run.

    Parameters
    ----------
    planes : (..., h, w) float32
    rows, columns : (H,), (W,) float64, cell index
        Where to read; 0.0 is the centre of the first cell.

    Returns
    -------
    (..., H, W) float32
    """
    low, high, part = _neighbours(rows, planes.shape[-2])
    tall = planes[..., low, :] * (1 - part)[:, None] + planes[..., high, :] * part[:, None]
    low, high, part = _neighbours(columns, planes.shape[-1])
    wide: NDArray[np.float32] = np.take(tall, low, axis=-1)
    wide *= 1 - part
    right = np.take(tall, high, axis=-1)
    right *= part
    wide += right
    return wide


def _neighbours(
    positions: NDArray[np.float64], count: int
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    held = np.clip(positions, 0.0, count - 1.0)
    low = np.minimum(np.floor(held).astype(np.intp), max(count - 2, 0))
    high = np.minimum(low + 1, count - 1)
    return low, high, (held - low).astype(np.float32)


def resize(plane: NDArray[np.float32], shape: tuple[int, int]) -> NDArray[np.float32]:
    """Resize one plane with a triangle filter: bilinear when enlarging, antialiased when reducing.

    The same arithmetic as ``torch.nn.functional.interpolate(mode="bilinear", antialias=True, align_corners=False)``.

    Parameters
    ----------
    plane : (H, W) float32
    shape : (rows, columns), pixel
        Size of the result.
    """
    tall = _triangle_weights(plane.shape[0], shape[0]) @ plane
    wide: NDArray[np.float32] = np.ascontiguousarray((_triangle_weights(plane.shape[1], shape[1]) @ tall.T).T)
    return wide


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
