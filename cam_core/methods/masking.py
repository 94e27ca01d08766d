"""The image seen through each feature plane, the changed inputs of the Score-CAM family; knows no weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cam_core.errors import ExplanationFailed
from cam_core.method import Evidence, Perturbation, Subject
from cam_core.registration import Registration, cells_on_grid

BASELINE = "logit of the model input with every pixel masked out (zero after normalisation)"


@dataclass(frozen=True, kw_only=True)
class PlaneMasks:
    """The input with every pixel masked out, then the input through the mask of each plane that makes one."""

    def inputs(self, subject: Subject, most: int) -> Iterator[NDArray[np.float32]]:
        """Blocks (n, C, *grid); see `cam_core.method.Perturbation`."""
        channels = masking_channels(subject.activations)
        yield np.zeros_like(subject.input)[None]
        first, room = 0, max(most - 1, 1)  # the baseline and the first planes fill one pass
        while first < channels.size:
            block = channels[first : first + room]
            masks = plane_masks(subject.activations[block], subject.registration, subject.input.shape[1:])
            yield subject.input * masks[:, None]
            first, room = first + room, most


def masking_channels(activations: NDArray[np.float32]) -> NDArray[np.intp]:
    """Channels whose plane is not constant and so makes a mask.

    Raises
    ------
    ExplanationFailed
        When there are none.
    """
    flat = activations.reshape(len(activations), -1)
    useful = np.flatnonzero(flat.max(axis=1) > flat.min(axis=1))
    if not useful.size:
        raise ExplanationFailed("masking", "every feature plane is constant, none makes a mask")
    return useful


def plane_masks(planes: NDArray[np.float32], registration: Registration, grid: tuple[int, ...]) -> NDArray[np.float32]:
    """Planes (n, *cells) as masks (n, *grid), each 0 at its smallest and 1 at its largest value on the grid."""
    spread = cells_on_grid(planes, registration, grid)
    every = tuple(range(1, spread.ndim))
    low = spread.min(axis=every, keepdims=True)
    width = spread.max(axis=every, keepdims=True) - low
    spread -= low
    spread /= np.where(width > 0, width, 1)
    return spread


@dataclass(frozen=True, kw_only=True, eq=False)
class MaskedScores:
    """What the model says of an image seen through each of its feature planes.

    Attributes
    ----------
    scores : (Ch, K) float32, logit
        Row k is NaN where channel k is constant and so makes no mask.
    baseline : (K,) float32, logit
        The model's answer with every pixel masked out.
    """

    scores: NDArray[np.float32]
    baseline: NDArray[np.float32]


def masked_scores(evidence: Evidence, ask: Perturbation) -> MaskedScores:
    """The answers to masks of planes, put back in the channels' places.

    Raises
    ------
    ExplanationFailed
        When no plane makes a mask, or the model gives scores that are no numbers.
    """
    answers = evidence.answers(ask)
    if not np.isfinite(answers).all():
        raise ExplanationFailed("masking", "the model's scores of masked inputs are not finite numbers")
    scores = np.full((len(evidence.activations), answers.shape[1]), np.nan, dtype=np.float32)
    scores[masking_channels(evidence.activations)] = answers[1:]
    return MaskedScores(scores=scores, baseline=answers[0])
