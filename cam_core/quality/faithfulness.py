"""Whether the model's score depends on the cells that a map points at; knows no mask.

Every one of these shows the model inputs that it was never trained on, so they are read side by side and with the
baseline that was used.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.integrate import trapezoid

from cam_core.quality.measure import Figure, missing, of_scores
from cam_core.quality.query import Query
from cam_core.quality.removal import Baseline, baseline_input, cell_counts, relevance_ranks, replaced
from cam_core.quality.scale import unit, why_not_positive, why_not_ranked

NO_SCORE = "the model's score of the image is not positive"


@dataclass(frozen=True, kw_only=True)
class Removal:
    """How cells are taken away.

    Attributes
    ----------
    steps : int
        Steps from the whole image to none of it.
    baseline : {"blur", "mean", "zero"}
        What stands where cells were taken away.
    seed : int
        Order of cells with equal values.
    """

    steps: int = 50
    baseline: Baseline = "blur"
    seed: int = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class Curve:
    """Scores on the way from one end to the other.

    Attributes
    ----------
    fractions : (S + 1,) float64, 0..1
        Part of the cells that was taken away or put in; what was really done, after rounding to whole cells.
    scores : (S + 1,) float64
    removal : Removal
    """

    fractions: NDArray[np.float64]
    scores: NDArray[np.float64]
    removal: Removal

    @property
    def area(self) -> float:
        """Area under the curve by trapezoids."""
        return float(trapezoid(self.scores, self.fractions))


def deletion_curve(query: Query, values: NDArray[np.floating], removal: Removal) -> Curve:
    """Scores while the most relevant cells go first (Petsiuk et al., BMVC 2018)."""
    return _curve(query, values, removal, query.input, baseline_input(query.input, removal.baseline))


def insertion_curve(query: Query, values: NDArray[np.floating], removal: Removal) -> Curve:
    """Scores while the most relevant cells come first into the baseline (Petsiuk et al., BMVC 2018)."""
    return _curve(query, values, removal, baseline_input(query.input, removal.baseline), query.input)


def _curve(
    query: Query,
    values: NDArray[np.floating],
    removal: Removal,
    start: NDArray[np.float32],
    end: NDArray[np.float32],
) -> Curve:
    check_grid(query, values)
    counts = cell_counts(values.size, removal.steps)
    ranks = relevance_ranks(values, removal.seed)
    scores = query.answers(replaced(start, end, ranks, counts, query.micro_batch))
    return Curve(fractions=counts / values.size, scores=scores, removal=removal)


def deletion(query: Query, values: NDArray[np.floating], removal: Removal) -> Figure:
    """Area under `deletion_curve`; a good map makes the score fall early."""
    reason = why_not_ranked(values)
    if reason:
        return missing("deletion", reason)
    return of_scores("deletion", deletion_curve(query, values, removal).area)


def insertion(query: Query, values: NDArray[np.floating], removal: Removal) -> Figure:
    """Area under `insertion_curve`; a good map makes the score rise early."""
    reason = why_not_ranked(values)
    if reason:
        return missing("insertion", reason)
    return of_scores("insertion", insertion_curve(query, values, removal).area)


def seen_through(
    image: NDArray[np.float32], values: NDArray[np.floating], baseline: Baseline = "zero"
) -> NDArray[np.float32]:
    """The image (C, *grid) where the map is high and the baseline where it is low: ``b + U * (x - b)``."""
    other = baseline_input(image, baseline)
    mixed: NDArray[np.float32] = other + unit(values).astype(np.float32)[None] * (image - other)
    return mixed


def masked_confidence(query: Query, values: NDArray[np.floating], baseline: Baseline = "zero") -> tuple[Figure, Figure]:
    """Average drop ``max(0, p - q) / p`` and increase in confidence ``q > p`` (Chattopadhay et al., WACV 2018).

    p is the score of the image, q that of the image seen through its map. Both are of one image: their means over a
    set are the published figures, which are often given in percent.
    """
    check_grid(query, values)
    reason = why_not_positive(values)
    if reason:
        return missing("average-drop", reason), missing("increase", reason)
    own, seen = query.answers([np.stack([query.input, seen_through(query.input, values, baseline)])])
    increase = of_scores("increase", float(seen > own) if np.isfinite(own + seen) else np.nan)
    if own <= 0:
        return missing("average-drop", NO_SCORE), increase
    return of_scores("average-drop", float(np.maximum((own - seen) / own, 0.0))), increase


def check_grid(query: Query, values: NDArray[np.floating]) -> None:
    """Refuse a map that isn't on the model's grid.

    Raises
    ------
    ValueError
    """
    if values.shape != query.grid:
        raise ValueError(f"the map has shape {values.shape}, the model's grid is {query.grid}")
