"""What a CAM method is, and the table of those that exist; knows no formulas."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cam_core.classifier import Capability
from cam_core.errors import UnknownMethod
from cam_core.extension import load_named, table_with_entry_points

ENTRY_POINT_GROUP = "camnode.methods"

METHODS: dict[str, str] = {
    "cam": "cam_core.methods.cam:METHODS",
    "grad-cam": "cam_core.methods.grad_cam:METHODS",
    "grad-cam++": "cam_core.methods.grad_cam_plus_plus:METHODS",
    "score-cam": "cam_core.methods.score_cam:METHODS",
}
"""Name to ``"module:name"`` of a tuple of methods, the variants of one name, the default first."""


@dataclass(frozen=True, kw_only=True, eq=False)
class MaskedScores:
    """What the model says of an image seen through each of its feature maps.

    Attributes
    ----------
    scores : (Ch, K) float32, logit
        Row k is NaN where channel k is constant and so makes no mask.
    baseline : (K,) float32, logit
        The model's answer with every pixel masked out.
    baseline_text : str
        What that baseline is.
    """

    scores: NDArray[np.float32]
    baseline: NDArray[np.float32]
    baseline_text: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Evidence:
    """What was captured of one image for all asked findings; methods are pure functions of it.

    Attributes
    ----------
    activations : (Ch, h, w) float32
    labels : tuple of int
        Output index of each asked finding.
    gradients : (L, Ch, h, w) float32 or None
        One per asked finding.
    head_weights : (K, Ch) float32 or None
        See `cam_core.classifier.Classifier.head_weights`.
    masked_scores : callable
        Runs the masked forwards on first use and keeps them for every finding and method.
    """

    activations: NDArray[np.float32]
    labels: tuple[int, ...]
    gradients: NDArray[np.float32] | None
    head_weights: NDArray[np.float32] | None
    masked_scores: Callable[[], MaskedScores]


@dataclass(frozen=True, kw_only=True, eq=False)
class RawMaps:
    """Maps (L, h, w) float32 of one method, one per asked finding, and the baseline it compared with."""

    values: NDArray[np.float32]
    baseline: str | None = None


@dataclass(frozen=True, kw_only=True)
class Method:
    """A way to make saliency maps.

    Attributes
    ----------
    name, variant, title : str
        Canonical name, variant (empty when there is but one) and name for people.
    family : str
        Kind of evidence: methods of one family say much the same.
    needs : frozenset of Capability
        What the classifier must be able to do.
    class_specific : bool
        Whether the map depends on the finding.
    reference : str
        The paper.
    maps : callable
        From `Evidence` to `RawMaps`.
    """

    name: str
    title: str
    variant: str
    family: str
    needs: frozenset[Capability]
    class_specific: bool
    reference: str
    maps: Callable[[Evidence], RawMaps]

    @property
    def full_name(self) -> str:
        """Name with its variant, as `method_named` takes it."""
        return f"{self.name}:{self.variant}" if self.variant else self.name


def known_methods() -> tuple[str, ...]:
    """Names of all methods, built in and from entry points, without their variants."""
    return tuple(sorted(_sources()))


def method_named(name: str) -> Method:
    """The method of a name such as ``grad-cam`` or, with a variant, ``score-cam:paper``.

    Raises
    ------
    UnknownMethod, DuplicateName
    """
    plain, _, variant = name.partition(":")
    sources = _sources()
    if plain not in sources:
        raise UnknownMethod(name, tuple(sorted(sources)))
    variants = _load(sources[plain])
    if not variant and ":" not in name:
        return variants[0]
    for method in variants:
        if method.variant == variant:
            return method
    raise UnknownMethod(name, tuple(method.full_name for method in variants))


def _sources() -> dict[str, str]:
    """The table with the entry points added; a name in both, or twice, is an error."""
    return table_with_entry_points("method", METHODS, ENTRY_POINT_GROUP)


def _load(source: str) -> tuple[Method, ...]:
    loaded = load_named(source)
    if isinstance(loaded, Method):
        return (loaded,)
    if isinstance(loaded, tuple) and loaded and all(isinstance(method, Method) for method in loaded):
        return loaded
    raise TypeError(f"{source} is neither a Method nor a tuple of Methods")
