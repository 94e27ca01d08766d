"""One finding of one image with its maps, and every measure that can be taken of it; knows no set of images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cam_core.quality.agreement import TOP_SHARE, class_sensitivity, disagreement, spearman, ssim, top_iou
from cam_core.quality.artefacts import Artefacts, artefact_shares
from cam_core.quality.complexity import adcc, arcc, coherency, complexity, effective_area, entropy, gini
from cam_core.quality.faithfulness import Removal, check_grid, deletion, insertion, masked_confidence, seen_through
from cam_core.quality.localisation import Threshold, auprc, energy_inside, overlap, pointing, rank_accuracy
from cam_core.quality.measure import Figure, missing
from cam_core.quality.perturbation import small_perturbations
from cam_core.quality.query import Query
from cam_core.quality.removal import Baseline
from cam_core.quality.road import SHARES, road
from cam_core.quality.sanity import Cascade, randomised_figures
from cam_core.quality.scale import why_not_positive
from cam_core.quality.stability import TOLERANCE, Explain, perturbed, repeatability, stability


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """A finding of an image and what is known of it; what isn't known is left out, with the measures that need it.

    Attributes
    ----------
    name : str
        Of the image.
    patient : str
        Whose it is; images of one patient are drawn together.
    finding : str
    query : Query
        The input, the probabilities and the finding's column.
    maps : mapping of method to (*grid) float
        Raw maps of the finding on the model's grid.
    mask : (*grid) bool or None
        Where the finding is.
    places : Artefacts or None
        Where no finding can be.
    other_maps : mapping of method to (L, *grid) float
        Maps of other labels of the same image.
    repeats : mapping of method to (M, *grid) float
        Maps of the same finding on other models.
    explain : mapping of method to callable
        The method itself, for coherency and stability.
    cascades : mapping of method to Cascade
        The method under weight randomisation.
    """

    name: str
    patient: str
    finding: str
    query: Query
    maps: Mapping[str, NDArray[np.floating]]
    mask: NDArray[np.bool_] | None = None
    places: Artefacts | None = None
    other_maps: Mapping[str, NDArray[np.floating]] = field(default_factory=dict)
    repeats: Mapping[str, NDArray[np.floating]] = field(default_factory=dict)
    explain: Mapping[str, Explain] = field(default_factory=dict)
    cascades: Mapping[str, Cascade] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for values in self.maps.values():
            check_grid(self.query, values)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the measures leave open; a report tells it.

    Attributes
    ----------
    removal : Removal
        Of deletion and insertion.
    masking : {"blur", "mean", "zero"}
        Baseline of average drop, increase and coherency.
    road_shares : tuple of float
    threshold : {"otsu"} or float
        Of IoU and Dice.
    pointing_tolerance : float, cell of the model's grid
    top_share : float
        Of the IoU of top areas.
    score_tolerance : float
        Of stability.
    seed : int
        Of everything drawn for one image.
    """

    removal: Removal = field(default_factory=Removal)
    masking: Baseline = "zero"
    road_shares: tuple[float, ...] = SHARES
    threshold: Threshold = "otsu"
    pointing_tolerance: float = 0.0
    top_share: float = TOP_SHARE
    score_tolerance: float = TOLERANCE
    seed: int = 0


def method_figures(case: Case, method: str, settings: Settings) -> tuple[Figure, ...]:
    """Every figure that the case allows for one method."""
    values = case.maps[method]
    found = [*_faithfulness(case, method, settings), gini(values), entropy(values), effective_area(values)]
    if method in case.other_maps:
        found.append(class_sensitivity(np.concatenate([values[None], case.other_maps[method]])))
    if method in case.explain:
        steps = small_perturbations(case.query.grid, settings.seed)
        tolerance = settings.score_tolerance
        found.extend(stability(perturbed(case.query, values, case.explain[method], steps, tolerance=tolerance)))
    if method in case.repeats:
        found.append(repeatability([values, *case.repeats[method]]))
    if method in case.cascades:
        found.extend(randomised_figures(case.cascades[method]))
    if case.mask is not None:
        found.extend(_localisation(values, case.mask, settings))
    if case.places is not None:
        found.extend(artefact_shares(values, case.places))
    return tuple(found)


def _faithfulness(case: Case, method: str, settings: Settings) -> list[Figure]:
    query, values = case.query, case.maps[method]
    drop, increase = masked_confidence(query, values, settings.masking)
    removed = road(query, values, shares=settings.road_shares, seed=settings.seed)
    simple = complexity(values)
    found = [
        deletion(query, values, settings.removal),
        insertion(query, values, settings.removal),
        drop,
        increase,
        removed.morf,
        removed.lerf,
        removed.combined,
        simple,
    ]
    if method in case.explain:
        coherent = _coherency(case, method, settings)
        found += [coherent, adcc(coherent, simple, drop), arcc(coherent, simple, removed.combined)]
    return found


def _coherency(case: Case, method: str, settings: Settings) -> Figure:
    values = case.maps[method]
    reason = why_not_positive(values)
    if reason:
        return missing("coherency", reason)
    return coherency(values, case.explain[method](seen_through(case.query.input, values, settings.masking)))


def _localisation(values: NDArray[np.floating], mask: NDArray[np.bool_], settings: Settings) -> list[Figure]:
    return [
        *overlap(values, mask, settings.threshold),
        pointing(values, mask, settings.pointing_tolerance),
        energy_inside(values, mask),
        auprc(values, mask),
        rank_accuracy(values, mask),
    ]


def pair_figures(case: Case, first: str, second: str, settings: Settings) -> tuple[Figure, ...]:
    """How far two methods agree."""
    one, other = case.maps[first], case.maps[second]
    compare: Sequence[Callable[[NDArray[np.floating], NDArray[np.floating]], Figure]] = (spearman, ssim)
    return (*(each(one, other) for each in compare), top_iou(one, other, settings.top_share))


def family_figure(case: Case, methods: Sequence[str]) -> Figure:
    """How far methods disagree that stand for one independent family each."""
    return disagreement(np.stack([case.maps[one] for one in methods]))
