"""The image seen through each feature plane and what the model says of it, for the Score-CAM family of methods."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cam_core.errors import ExplanationFailed
from cam_core.method import Evidence, Perturbation, Subject
from cam_core.methods.combination import positive_sum
from cam_core.registration import Registration, cells_on_grid

BASELINE = "logit of the model input with every pixel masked out (zero after normalisation)"


@dataclass(frozen=True, kw_only=True)
class PlaneMasks:
    """The input with every pixel masked out, then the input through the mask of each plane that makes one."""

    def inputs(self, subject: Subject, most: int) -> Iterator[NDArray[np.float32]]:
        """Blocks (n, C, *grid); see `cam_core.method.Perturbation`."""
        return masked_inputs(subject, masking_channels(subject.activations), most)


def masked_inputs(subject: Subject, channels: NDArray[np.intp], most: int) -> Iterator[NDArray[np.float32]]:
    """The input with every pixel masked out, then through the masks of `channels`, in blocks (n, C, *grid)."""
    yield np.zeros_like(subject.input)[None]
    first, room = 0, max(most - 1, 1)  # the baseline and the first planes fill one pass
    while first < channels.size:
        block = channels[first : first + room]
        masks = plane_masks(subject.activations[block], subject.registration, subject.input.shape[1:])
        yield subject.input * masks[:, None]
        first, room = first + room, most


@dataclass(frozen=True, kw_only=True)
class NoisyMasks:
    """The input masked out, then for each plane that makes a mask the input through that mask with noise added to it.

    The noise of a channel depends on the seed and the channel alone, not on what is computed with it.

    Attributes
    ----------
    samples : int
        Draws of noise for each mask.
    deviation : float
        Standard deviation of the normal noise at each pixel; the mask itself is 0..1.
    seed : int
    """

    samples: int
    deviation: float
    seed: int = 0

    def inputs(self, subject: Subject, most: int) -> Iterator[NDArray[np.float32]]:
        """Blocks (n, C, *grid); see `cam_core.method.Perturbation`."""
        channels = masking_channels(subject.activations)
        yield np.zeros_like(subject.input)[None]
        for channel in channels:
            mask = _plane_mask(subject, channel)
            source = np.random.default_rng((self.seed, int(channel)))
            for first in range(0, self.samples, most):
                count = min(most, self.samples - first)
                noise = source.standard_normal((count, *mask.shape), dtype=np.float32)
                noise *= np.float32(self.deviation)
                noise += mask
                yield subject.input * noise[:, None]


@dataclass(frozen=True, kw_only=True)
class ScaledMasks:
    """The input masked out, then for each plane that makes a mask the input through that mask times each scale."""

    scales: tuple[float, ...]

    def inputs(self, subject: Subject, most: int) -> Iterator[NDArray[np.float32]]:
        """Blocks (n, C, *grid); see `cam_core.method.Perturbation`."""
        channels = masking_channels(subject.activations)
        yield np.zeros_like(subject.input)[None]
        scales = np.asarray(self.scales, dtype=np.float32).reshape(-1, *[1] * subject.input.ndim)
        for channel in channels:
            masked = subject.input * _plane_mask(subject, channel)
            for first in range(0, len(scales), most):
                yield masked * scales[first : first + most]


def _plane_mask(subject: Subject, channel: np.intp) -> NDArray[np.float32]:
    mask: NDArray[np.float32] = plane_masks(
        subject.activations[channel][None], subject.registration, subject.input.shape[1:]
    )[0]
    return mask


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
        Row k is NaN where channel k is constant and so makes no mask. The mean where each mask was used several times.
    baseline : (K,) float32, logit
        The model's answer with every pixel masked out.
    """

    scores: NDArray[np.float32]
    baseline: NDArray[np.float32]


def masked_scores(evidence: Evidence, ask: Perturbation, repeats: int = 1) -> MaskedScores:
    """The answers to masks of planes, put back in the channels' places.

    Parameters
    ----------
    evidence : Evidence
    ask : Perturbation
        The input masked out, then `repeats` inputs for each channel that makes a mask.
    repeats : int

    Raises
    ------
    ExplanationFailed
        When no plane makes a mask, or the model gives scores that are no numbers.
    """
    answers = evidence.answers(ask)
    if not np.isfinite(answers).all():
        raise ExplanationFailed("masking", "the model's scores of masked inputs are not finite numbers")
    labels = answers.shape[1]
    scores = np.full((len(evidence.activations), labels), np.nan, dtype=np.float32)
    means = answers[1:].reshape(-1, repeats, labels).mean(axis=1, dtype=np.float64)
    scores[masking_channels(evidence.activations)] = means
    return MaskedScores(scores=scores, baseline=answers[0])


def channel_softmax(scores: NDArray[np.float32]) -> NDArray[np.float64]:
    """Softmax over the channels (Ch, K) that made a mask; 0 for those that made none (NaN)."""
    wide = scores.astype(np.float64)
    powers = np.where(np.isnan(wide), 0.0, np.exp(wide - np.nanmax(wide, axis=0, keepdims=True)))
    shares: NDArray[np.float64] = powers / powers.sum(axis=0, keepdims=True)
    return shares


def channel_maps(evidence: Evidence, weights: NDArray[np.float64]) -> NDArray[np.float32]:
    """``ReLU(sum_k w_k * A_k)`` (L, *cells) of the asked findings from the channels' weights for all labels (Ch, K)."""
    return positive_sum(weights[:, list(evidence.labels)].T, evidence.activations)
