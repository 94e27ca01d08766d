"""ROAD: remove a share of the cells, fill it in from its surroundings, and see what the model says; knows no mask.

Rong et al., ICML 2022, as a change of the score instead of a change of the accuracy, so that it can be told for one
image. What is filled in keeps the picture's look, and the shape of what was removed tells the model little.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cam_core.quality.faithfulness import check_grid
from cam_core.quality.imputation import impute, neighbourhood
from cam_core.quality.measure import Figure, missing, of_scores
from cam_core.quality.query import Query
from cam_core.quality.removal import relevance_ranks
from cam_core.quality.scale import why_not_ranked

SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Parts of the cells that are removed."""


@dataclass(frozen=True, kw_only=True)
class Road:
    """Change of the score, mean over the removed shares.

    Attributes
    ----------
    morf : Figure
        The most relevant cells removed: ``mean_s(p(x without the top s) - p(x))``.
    lerf : Figure
        The least relevant cells removed.
    combined : Figure
        ``(lerf - morf) / 2``.
    """

    morf: Figure
    lerf: Figure
    combined: Figure


def road(query: Query, values: NDArray[np.floating], *, shares: tuple[float, ...] = SHARES, seed: int = 0) -> Road:
    """Measure both orders and their difference.

    Parameters
    ----------
    values : (*grid) float, raw map on the model's grid
    shares : tuple of float, 0..1 exclusive
    seed : int
        Of the noise and of the order of cells with equal values.
    """
    check_grid(query, values)
    if not all(0 < share < 1 for share in shares):
        raise ValueError(f"shares {shares} are not all between 0 and 1")
    reason = why_not_ranked(values)
    if reason:
        return Road(
            morf=missing("road-morf", reason),
            lerf=missing("road-lerf", reason),
            combined=missing("road-combined", reason),
        )
    ranks = relevance_ranks(values, seed)
    counts = [min(max(round(share * values.size), 1), values.size - 1) for share in shares]
    gone = [ranks < count for count in counts] + [ranks >= values.size - count for count in counts]
    change = query.answers(_imputed(query, gone, seed)) - query.own()
    morf, lerf = float(change[: len(counts)].mean()), float(change[len(counts) :].mean())
    return Road(
        morf=of_scores("road-morf", morf),
        lerf=of_scores("road-lerf", lerf),
        combined=of_scores("road-combined", (lerf - morf) / 2),
    )


def _imputed(query: Query, gone: list[NDArray[np.bool_]], seed: int) -> Iterator[NDArray[np.float32]]:
    """The input with each of the sets of cells filled in, in batches."""
    around = neighbourhood(query.grid)
    source = np.random.default_rng(seed)
    for first in range(0, len(gone), query.micro_batch):
        block = gone[first : first + query.micro_batch]
        yield np.stack([impute(query.input, one, around, source) for one in block])
