"""Whether maps stay as they are when the image or the model changes a little; knows no mask."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from cam_core.quality.agreement import spearman, ssim
from cam_core.quality.measure import Figure, missing
from cam_core.quality.perturbation import Perturbation, in_view
from cam_core.quality.query import Query

Explain = Callable[[NDArray[np.float32]], NDArray[np.floating]]
"""From an input (C, *grid) to the raw map (*grid) of the label in question."""

TOLERANCE = 0.05
"""A perturbation counts when the score moves by less: where the answer changes, the map may change."""


@dataclass(frozen=True, kw_only=True)
class Perturbed:
    """What one perturbation did.

    Attributes
    ----------
    perturbation : str
    change : float
        ``|p(x) - p(T x)|``.
    counted : bool
        Whether that is under the tolerance.
    ssim, spearman : Figure
        The map of T x brought back, against the map of x, over what both see.
    """

    perturbation: str
    change: float
    counted: bool
    ssim: Figure
    spearman: Figure


def perturbed(
    query: Query,
    values: NDArray[np.floating],
    explain: Explain,
    perturbations: Sequence[Perturbation],
    *,
    tolerance: float = TOLERANCE,
) -> tuple[Perturbed, ...]:
    """Explain changed versions of the input and compare their maps, brought back, with the input's own.

    Parameters
    ----------
    values : (*grid) float
        The input's own map, by the same `explain`.
    tolerance : float
        On the scale of the query's score; 0.05 is meant for probabilities.
    """
    own = query.own()
    found = []
    for one in perturbations:
        changed = one.forward(query.input)
        change = abs(float(query.answers([changed[None]])[0]) - own)
        counted = change < tolerance
        alike = _alike(values, one.back(explain(changed))) if counted else _unlooked()
        found.append(Perturbed(perturbation=one.name, change=change, counted=counted, ssim=alike[0], spearman=alike[1]))
    return tuple(found)


def _alike(values: NDArray[np.floating], back: NDArray[np.float64]) -> tuple[Figure, Figure]:
    box = in_view(back)
    if not back[box].size:
        return missing("ssim", "nothing of the map is in view"), missing("spearman", "nothing of the map is in view")
    return ssim(values[box], back[box]), spearman(values[box], back[box])


def _unlooked() -> tuple[Figure, Figure]:
    reason = "the score changed, so the map may"
    return missing("ssim", reason), missing("spearman", reason)


def stability(found: Sequence[Perturbed]) -> tuple[Figure, Figure]:
    """Mean SSIM and mean rank correlation over the perturbations that count and give a comparable map."""
    counted = [one for one in found if one.counted]
    if not counted:
        reason = "the score moved beyond the tolerance under every perturbation"
        return missing("stability-ssim", reason), missing("stability-spearman", reason)
    return (
        mean_figure("stability-ssim", [one.ssim for one in counted]),
        mean_figure("stability-spearman", [one.spearman for one in counted]),
    )


def repeatability(maps: Sequence[NDArray[np.floating]]) -> Figure:
    """Mean SSIM over all pairs of models, of their maps of one image (Arun et al., Radiology: AI 2021).

    With models of one architecture trained again that is their repeatability, with different architectures their
    reproducibility.

    Parameters
    ----------
    maps : sequence of (*grid) float
        One for each model.
    """
    if len(maps) < 2:
        return missing("repeatability", "fewer than two models")
    return mean_figure("repeatability", [ssim(one, other) for one, other in combinations(maps, 2)])


def mean_figure(measure: str, figures: Sequence[Figure]) -> Figure:
    """Mean of the figures that are numbers, under a measure's name; the first reason when none is."""
    values = [one.value for one in figures if one.reason is None]
    if values:
        return Figure(measure=measure, value=float(np.mean(values)))
    if figures:
        return replace(figures[0], measure=measure)
    return missing(measure, "nothing was compared")
