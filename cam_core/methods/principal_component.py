"""The first principal component of feature planes, with a sign that is defined; knows no evidence."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh
from scipy.sparse.linalg import ArpackNoConvergence, eigsh

from cam_core.errors import ExplanationFailed

DENSE = 128
"""Up to this size a matrix's eigenvectors are found directly; above, only the one that is asked for, by iteration."""


def first_projection(planes: NDArray[np.floating], towards: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each cell's projection on the planes' first right singular vector: ``O v1`` of ``O = U S V^T``, not centred.

    ``O v1 = s1 u1``. It is taken from the eigenvectors of ``O O^T`` or ``O^T O``, whichever is smaller, so no singular
    vector is computed that isn't used.

    Parameters
    ----------
    planes : (Ch, P) float
        O is their transpose: one row a cell.
    towards : (P,) float64
        Decides the sign, which the decomposition leaves open: the projection's inner product with it is not negative.
        Where it is 0, the value that is largest in size is positive.

    Returns
    -------
    (P,) float64

    Raises
    ------
    ExplanationFailed
        When the planes hold values that are not finite numbers.
    """
    if not np.isfinite(planes).all():
        raise ExplanationFailed("principal component", "the feature planes hold values that are not finite numbers")
    rows = planes.T.astype(np.float64)
    if not rows.any():
        return np.zeros(len(rows))
    cells, channels = rows.shape
    value, vector = _first_eigenvector(rows @ rows.T if cells <= channels else rows.T @ rows)
    projection = vector * np.sqrt(value) if cells <= channels else rows @ vector
    agreement = float(projection @ towards) or float(projection[np.abs(projection).argmax()])
    return -projection if agreement < 0 else projection


def _first_eigenvector(products: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
    """Largest eigenvalue of a symmetric matrix and its vector; Lanczos' iteration starts from the same noise always."""
    last = len(products) - 1
    if last >= DENSE:
        start = np.random.default_rng(0).standard_normal(len(products))
        try:
            values, vectors = eigsh(products, k=1, which="LA", v0=start)
            return float(values[0]), vectors[:, 0]
        except ArpackNoConvergence:
            pass  # the largest ones lie too close together
    values, vectors = eigh(products, subset_by_index=(last, last))
    return float(values[0]), vectors[:, 0]
