"""What a method is, what it is given and what it gives, and the table of those that exist; knows no formulas."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax

from cam_core.classifier import Capability
from cam_core.errors import MethodNotApplicable, UnknownMethod
from cam_core.extension import load_named, table_with_entry_points
from cam_core.registration import Registration

ENTRY_POINT_GROUP = "camnode.methods"

CONTROL = "control"
"""The family of maps that must not look like evidence; a quality report shows how others differ from them."""

METHODS: dict[str, str] = {
    "cam": "cam_core.methods.cam:METHODS",
    "grad-cam": "cam_core.methods.grad_cam:METHODS",
    "grad-cam++": "cam_core.methods.grad_cam_plus_plus:METHODS",
    "hirescam": "cam_core.methods.hirescam:METHODS",
    "layercam": "cam_core.methods.layercam:METHODS",
    "xgrad-cam": "cam_core.methods.xgrad_cam:METHODS",
    "shapley-cam": "cam_core.methods.shapley_cam:METHODS",
    "finer-cam": "cam_core.methods.finer_cam:METHODS",
    "score-cam": "cam_core.methods.score_cam:METHODS",
    "ss-cam": "cam_core.methods.ss_cam:METHODS",
    "is-cam": "cam_core.methods.is_cam:METHODS",
    "ablation-cam": "cam_core.methods.ablation_cam:METHODS",
    "eigen-cam": "cam_core.methods.eigen_cam:METHODS",
    "eigen-grad-cam": "cam_core.methods.eigen_grad_cam:METHODS",
    "occlusion": "cam_core.methods.occlusion:METHODS",
    "random": "cam_core.methods.random_map:METHODS",
}
"""Name to ``"module:name"`` of a tuple of methods, the variants of one name, the default first."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Subject:
    """One image as the model sees it, for making changed inputs of it.

    Attributes
    ----------
    input : (C, *grid) float32
        Normalised as the model's card says.
    activations : (Ch, *cells) float32
    registration : Registration
        Where the cells lie on the grid.
    """

    input: NDArray[np.float32]
    activations: NDArray[np.float32]
    registration: Registration


class Perturbation(Protocol):
    """Changed inputs that a method wants scored: a frozen value; equal ones are run once for all methods and findings.

    It must not keep what it makes: memory is bounded by the block.
    """

    def inputs(self, subject: Subject, most: int) -> Iterator[NDArray[np.float32]]:
        """Blocks (n, C, *grid) of changed inputs, n at most `most`, in a fixed order.

        Raises
        ------
        ExplanationFailed
            When none can be made of this image.
        """

    def __hash__(self) -> int: ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Evidence:
    """What was captured of one image for all asked findings; methods are pure functions of it.

    ``*cells`` is (h, w) for pictures and (d, h, w) for volumes.

    Attributes
    ----------
    input : (C, *grid) float32
        Normalised as the model's card says.
    activations : (Ch, *cells) float32
    labels : tuple of int
        Output index of each asked finding.
    logits : (K,) float32
        Of the image as it is, all outputs.
    activation : ``sigmoid`` or ``softmax``
        From logits to probabilities.
    gradients : (L, Ch, *cells) float32 or None
        One per asked finding.
    label_gradients : (K, Ch, *cells) float32 or None
        One per output of the model; only when a method asks for every label.
    curvatures : (L, Ch, *cells) float32 or None
        See `cam_core.classifier.Capture.curvatures`.
    head_weights : (K, Ch) float32 or None
        See `cam_core.classifier.Classifier.head_weights`.
    grid : tuple of int, pixel
        Size of the model's input.
    registration : Registration
        Where the cells lie on it.
    answers : callable
        From a `Perturbation` that the method asks for to the logits (n, K) of its inputs, in their order. Raises
        ExplanationFailed when those passes failed.
    ablated : callable
        Logits (Ch, K) with each channel of the activations set to 0 in turn.
    """

    input: NDArray[np.float32]
    activations: NDArray[np.float32]
    labels: tuple[int, ...]
    logits: NDArray[np.float32]
    activation: Literal["sigmoid", "softmax"]
    gradients: NDArray[np.float32] | None
    label_gradients: NDArray[np.float32] | None
    curvatures: NDArray[np.float32] | None
    head_weights: NDArray[np.float32] | None
    grid: tuple[int, ...]
    registration: Registration
    answers: Callable[[Perturbation], NDArray[np.float32]]
    ablated: Callable[[], NDArray[np.float32]]

    def probabilities(self, logits: NDArray[np.floating]) -> NDArray[np.float64]:
        """Probabilities of logits (n, K) by the model's own last step."""
        wide = logits.astype(np.float64)
        found: NDArray[np.float64] = expit(wide) if self.activation == "sigmoid" else softmax(wide, axis=1)
        return found


@dataclass(frozen=True, kw_only=True, eq=False)
class RawMaps:
    """Maps of one method, one per asked finding.

    Attributes
    ----------
    values : (L, *cells) float32
    baseline : str or None
        What a perturbing method compared with.
    registration : Registration or None
        Where the map's cells lie on the model's grid, when they are not those of the target layer.
    """

    values: NDArray[np.float32]
    baseline: str | None = None
    registration: Registration | None = None


@dataclass(frozen=True, kw_only=True)
class Scale:
    """What a method's raw values are.

    Attributes
    ----------
    signed : bool
        Whether negative values (evidence against) are kept.
    unit : str
        In words: ``logit``, ``logit times activation``.
    """

    signed: bool
    unit: str


@dataclass(frozen=True, kw_only=True)
class Method:
    """A way to make saliency maps.

    Attributes
    ----------
    name, variant, title : str
        Canonical name, variant (empty when there is but one) and name for people.
    family : str
        Kind of evidence: methods of one family say much the same, those of different families are independent.
    needs : frozenset of Capability
        What the classifier must be able to do.
    class_specific : bool
        Whether the map depends on the finding.
    scale : Scale
        What the raw values are.
    reference : str
        The paper.
    maps : callable
        From `Evidence` to `RawMaps`.
    asks : tuple of Perturbation
        Changed inputs whose scores it reads by `Evidence.answers`.
    reads : ``logit`` or ``probability``
        What it makes of those scores: a probability may stand still where its logit moves.
    every_label : bool
        Whether it reads `Evidence.label_gradients`.
    """

    name: str
    title: str
    variant: str = ""
    family: str
    needs: frozenset[Capability]
    class_specific: bool = True
    scale: Scale
    reference: str
    maps: Callable[[Evidence], RawMaps]
    asks: tuple[Perturbation, ...] = ()
    reads: Literal["logit", "probability"] = "logit"
    every_label: bool = False

    @property
    def full_name(self) -> str:
        """Name with its variant, as `method_named` takes it."""
        return f"{self.name}:{self.variant}" if self.variant else self.name


def known_methods() -> tuple[str, ...]:
    """Names of all methods, built in and from entry points, without their variants."""
    return tuple(sorted(_sources()))


def variants_of(name: str) -> tuple[Method, ...]:
    """All variants of a method, the default first.

    Raises
    ------
    UnknownMethod, DuplicateName
    """
    sources = _sources()
    if name not in sources:
        raise UnknownMethod(name, tuple(sorted(sources)))
    return _load(sources[name])


def method_named(name: str) -> Method:
    """The method of a name such as ``grad-cam`` or, with a variant, ``score-cam:paper``.

    Raises
    ------
    UnknownMethod, DuplicateName
    """
    plain, colon, variant = name.partition(":")
    variants = variants_of(plain)
    if not colon:
        return variants[0]
    for method in variants:
        if method.variant == variant:
            return method
    raise UnknownMethod(name, tuple(method.full_name for method in variants))


def clinical_method(name: str) -> Method:
    """As `method_named`, but no null control: such a map explains nothing and is for quality reports only.

    Raises
    ------
    UnknownMethod, DuplicateName
    MethodNotApplicable
        For a control.
    """
    method = method_named(name)
    if method.family == CONTROL:
        raise MethodNotApplicable(name, "it is a null control for quality reports and explains nothing")
    return method


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
