"""Occlusion sensitivity: what the logit loses when a patch of the input is covered; asks nothing but scores."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cam_core.classifier import Capability
from cam_core.errors import ExplanationFailed
from cam_core.method import Evidence, Method, RawMaps, Scale, Subject
from cam_core.registration import Registration

PARTS = {2: 16, 3: 8}
"""Into about how many strides an axis is divided, by number of axes: at most 15 x 15 or 7 x 7 x 7 patches."""


@dataclass(frozen=True, kw_only=True)
class Tiling:
    """Patches of one size at equal distances that together cover the grid exactly.

    Attributes
    ----------
    stride, size, count : tuple of int
        For each axis in pixels, pixels and patches. A patch is two to three strides wide.
    """

    stride: tuple[int, ...]
    size: tuple[int, ...]
    count: tuple[int, ...]

    @property
    def registration(self) -> Registration:
        """Where the patches' centres lie on the grid."""
        return Registration(
            start=tuple((size - 1) / 2 for size in self.size),
            step=tuple(float(stride) for stride in self.stride),
            measured=True,
        )

    @property
    def patches(self) -> list[tuple[slice, ...]]:
        """All patches, the last axis fastest."""
        places = product(*(range(count) for count in self.count))
        return [
            tuple(
                slice(i * stride, i * stride + size) for i, stride, size in zip(at, self.stride, self.size, strict=True)
            )
            for at in places
        ]


def tiling(grid: tuple[int, ...]) -> Tiling:
    """Patches for a grid, as `PARTS` says; half of each overlaps with the next."""
    strides = [-(-side // PARTS[len(grid)]) for side in grid]
    counts = [max(side // stride - 1, 1) for side, stride in zip(grid, strides, strict=True)]
    lines = zip(grid, strides, counts, strict=True)
    return Tiling(
        stride=tuple(strides), size=tuple(side - (n - 1) * stride for side, stride, n in lines), count=tuple(counts)
    )


@dataclass(frozen=True, kw_only=True)
class Patches:
    """The input as it is, then with each patch of `tiling` covered.

    Attributes
    ----------
    fill : ``mean`` or ``zero``
        What covers it: each channel's mean over the input, or 0 of the normalised input.
    """

    fill: Literal["mean", "zero"]

    def inputs(self, subject: Subject, most: int) -> Iterator[NDArray[np.float32]]:
        """Blocks (n, C, *grid); see `cam_core.method.Perturbation`."""
        own = subject.input
        axes = tuple(range(1, own.ndim))
        means = own.mean(axis=axes, keepdims=True, dtype=np.float64).astype(np.float32)
        cover = means if self.fill == "mean" else np.zeros_like(means)
        patches = tiling(own.shape[1:]).patches
        yield own[None]
        for first in range(0, len(patches), most):
            chosen = patches[first : first + most]
            block = np.repeat(own[None], len(chosen), axis=0)
            for covered, patch in zip(block, chosen, strict=True):
                covered[(slice(None), *patch)] = cover
            yield block


def _maps(evidence: Evidence, patches: Patches, baseline: str) -> RawMaps:
    """``M_c[i, j] = y_c - y_c(patch i, j covered)``: signed, positive where the covered part spoke for the finding.

    Source: Zeiler and Fergus 2014, section 4.2, there as the probability of the right class; here as the logit's loss.
    """
    answers = evidence.answers(patches)[:, list(evidence.labels)].astype(np.float64)
    if not np.isfinite(answers).all():
        raise ExplanationFailed("occlusion", "the model's scores of covered inputs are not finite numbers")
    tiles = tiling(evidence.grid)
    losses = (answers[0] - answers[1:]).T.reshape(-1, *tiles.count)
    return RawMaps(values=losses.astype(np.float32), baseline=baseline, registration=tiles.registration)


def mean(evidence: Evidence) -> RawMaps:
    """Patches covered by each channel's mean; see `_maps`."""
    return _maps(evidence, MEAN, "patch replaced by the mean of the model input")


def zero(evidence: Evidence) -> RawMaps:
    """Patches covered by 0 of the normalised input; see `_maps`."""
    return _maps(evidence, ZERO, "patch replaced by zero after normalisation")


MEAN = Patches(fill="mean")
ZERO = Patches(fill="zero")

METHODS = tuple(
    Method(
        name="occlusion",
        title="Occlusion sensitivity",
        variant=ask.fill,
        family="occlusion",
        needs=frozenset({Capability.SCORES}),
        scale=Scale(signed=True, unit="logit"),
        reference="Zeiler MD, Fergus R. Visualizing and Understanding Convolutional Networks. ECCV 2014",
        maps=maps,
        asks=(ask,),
    )
    for ask, maps in ((MEAN, mean), (ZERO, zero))
)
