"""Whether a map depends on what the model learnt, by weights made random from the output down; randomises nothing.

Adebayo et al., "Sanity Checks for Saliency Maps" (NeurIPS 2018), with the pass line of Arun et al. (Radiology: AI
2021). The classifiers with random weights come from `cam_core.runtimes.randomisation`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cam_core.quality.agreement import spearman, ssim
from cam_core.quality.measure import Figure, missing
from cam_core.quality.stability import mean_figure

PAIRS = 50
"""Random pairs of maps that make the pass line, as in Arun et al."""


@dataclass(frozen=True, kw_only=True)
class Cascade:
    """One image's map against its maps on ever more random models.

    Attributes
    ----------
    layers : tuple of str
        What was made random last, the output first.
    ssim, spearman : tuple of Figure
        Likeness to the trained model's map at each step.
    """

    layers: tuple[str, ...]
    ssim: tuple[Figure, ...]
    spearman: tuple[Figure, ...]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A method under the cascade over a set of images.

    Attributes
    ----------
    layers : tuple of str
    ssim, spearman : tuple of Figure
        Means over the images at each step.
    pass_line : Figure
        Mean SSIM of maps of different images on the trained model.
    passed : bool or None
        Whether the mean SSIM with every layer random is under the line; None when one of the two is not a number.
    """

    layers: tuple[str, ...]
    ssim: tuple[Figure, ...]
    spearman: tuple[Figure, ...]
    pass_line: Figure
    passed: bool | None


def cascade(values: NDArray[np.floating], randomised: Iterable[tuple[str, NDArray[np.floating]]]) -> Cascade:
    """Compare a map with those of the cascade's steps.

    Parameters
    ----------
    values : (*grid) float
        The trained model's map.
    randomised : iterable of (layer, (*grid) float)
        The output's layer first.
    """
    steps = list(randomised)
    if not steps:
        raise ValueError("the cascade has no steps")
    return Cascade(
        layers=tuple(layer for layer, _ in steps),
        ssim=tuple(ssim(values, one) for _, one in steps),
        spearman=tuple(spearman(values, one) for _, one in steps),
    )


def randomised_figures(found: Cascade) -> tuple[Figure, Figure]:
    """SSIM and rank correlation with every layer random."""
    return (
        replace(found.ssim[-1], measure="randomised-ssim"),
        replace(found.spearman[-1], measure="randomised-spearman"),
    )


def pass_line(
    maps: Sequence[NDArray[np.floating]], images: Sequence[str] | None = None, *, pairs: int = PAIRS, seed: int = 0
) -> Figure:
    """Mean SSIM of random pairs of maps of different images: how alike maps are that have nothing in common.

    Parameters
    ----------
    maps : sequence of (*grid) float
        Of the trained model.
    images : sequence of str, optional
        Which image each map is of; two maps of one image make no pair. Without it each is of its own.
    pairs : int
        Drawn without repeats; all there are, where there are fewer.
    seed : int
    """
    names = np.arange(len(maps)).astype(str) if images is None else np.asarray(images, dtype=str)
    first, second = np.triu_indices(len(maps), 1)
    apart = names[first] != names[second]
    first, second = first[apart], second[apart]
    if not first.size:
        return missing("pass-line", "fewer than two images")
    drawn = np.random.default_rng(seed).choice(first.size, min(pairs, first.size), replace=False)
    return mean_figure("pass-line", [ssim(maps[first[one]], maps[second[one]]) for one in drawn])


def verdict(cascades: Sequence[Cascade], line: Figure) -> Verdict:
    """Means over images of cascades with the same steps, and whether the last one is under the line."""
    layers = {one.layers for one in cascades}
    if len(layers) != 1:
        raise ValueError(f"the cascades have {len(layers)} different lists of layers")
    alike = tuple(mean_figure("ssim", step) for step in zip(*(one.ssim for one in cascades), strict=True))
    ranked = tuple(mean_figure("spearman", step) for step in zip(*(one.spearman for one in cascades), strict=True))
    known = alike[-1].reason is None and line.reason is None
    return Verdict(
        layers=layers.pop(),
        ssim=alike,
        spearman=ranked,
        pass_line=line,
        passed=alike[-1].value < line.value if known else None,
    )
