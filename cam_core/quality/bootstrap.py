"""Confidence intervals over a set of images by drawing patients again; knows no measure.

Images of one patient are not independent, so whole patients are drawn (Field and Welsh, JRSS B 2007), and the interval
is the percentile one (Efron and Tibshirani 1993).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

DRAWS = 1000
LEVEL = 0.95


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean with its interval.

    Attributes
    ----------
    value : float
        Mean over the images with a number; NaN without any.
    low, high : float
        Ends of the interval; NaN with fewer than two patients.
    n : int
        Images with a number.
    missing : int
        Images without.
    patients : int
        Patients with at least one image with a number.
    level : float, 0..1
    draws, seed : int
        Of the bootstrap.
    """

    value: float
    low: float
    high: float
    n: int
    missing: int
    patients: int
    level: float
    draws: int
    seed: int


def interval(
    values: Sequence[float] | NDArray[np.floating],
    patients: Sequence[str] | None = None,
    *,
    draws: int = DRAWS,
    level: float = LEVEL,
    seed: int = 0,
) -> Interval:
    """Mean of the values that are numbers, with a patient-clustered percentile interval.

    Parameters
    ----------
    values : (n,) float
        One for each image; NaN where there is none.
    patients : sequence of str, optional
        Whose image each is; without it every image counts as a patient.
    """
    every = np.asarray(values, dtype=np.float64)
    names = np.arange(every.size).astype(str) if patients is None else np.asarray(patients, dtype=str)
    if names.shape != every.shape:
        raise ValueError(f"{every.size} values of {names.size} patients")
    there = np.isfinite(every)
    found, cluster = np.unique(names[there], return_inverse=True)
    low, high = math.nan, math.nan
    if found.size > 1:
        sums = np.bincount(cluster, weights=every[there]).astype(np.float64)
        low, high = _ends(sums, np.bincount(cluster).astype(np.float64), draws, level, seed)
    return Interval(
        value=float(every[there].mean()) if there.any() else math.nan,
        low=low,
        high=high,
        n=int(there.sum()),
        missing=int(every.size - there.sum()),
        patients=int(found.size),
        level=level,
        draws=draws,
        seed=seed,
    )


def paired_interval(
    first: Sequence[float] | NDArray[np.floating],
    second: Sequence[float] | NDArray[np.floating],
    patients: Sequence[str] | None = None,
    *,
    draws: int = DRAWS,
    level: float = LEVEL,
    seed: int = 0,
) -> Interval:
    """Mean difference ``first - second`` over the images where both are numbers, with its interval."""
    one, other = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if one.shape != other.shape:
        raise ValueError(f"{one.size} values against {other.size} can't be paired")
    return interval(one - other, patients, draws=draws, level=level, seed=seed)


def _ends(
    sums: NDArray[np.float64], counts: NDArray[np.float64], draws: int, level: float, seed: int
) -> tuple[float, float]:
    """Percentile interval of the mean over images when clusters with these sums and counts are drawn."""

    def mean(drawn: NDArray[np.intp], axis: int = -1) -> NDArray[np.float64]:
        ratio: NDArray[np.float64] = sums[drawn].sum(axis=axis) / counts[drawn].sum(axis=axis)
        return ratio

    ends = stats.bootstrap(
        (np.arange(sums.size),),
        mean,
        n_resamples=draws,
        vectorized=True,
        batch=max(1_000_000 // sums.size, 1),
        confidence_level=level,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(ends.low), float(ends.high)
