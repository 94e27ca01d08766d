"""What a running classifier can do and how one is opened from its card; knows no runtime's internals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Literal, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from cam_core.card import ModelCard, verified_weights
from cam_core.errors import MethodNotApplicable, ModelLoadError
from cam_core.extension import load_named
from cam_core.registration import Registration

RUNTIMES: dict[str, str] = {
    "torch": "cam_core.runtimes.torch_runtime:open_torch",
    "onnx": "cam_core.runtimes.onnx_runtime:open_onnx",
}
"""Name to ``"module:name"`` of an `Opener`; loaded when first asked for, so that one can be left uninstalled."""


class Capability(Enum):
    """What a method may need of a classifier."""

    SCORES = "scores"
    ACTIVATIONS = "activations"
    GRADIENTS = "gradients"
    CURVATURES = "second derivatives"
    HEAD = "passes through the head alone"


@dataclass(frozen=True, kw_only=True, eq=False)
class Capture:
    """What one pass of a batch through a classifier left behind.

    ``*cells`` is (h, w) for models of pictures and (d, h, w) for models of volumes.

    Attributes
    ----------
    scores : (N, K) float32, logit
    activations : (N, Ch, *cells) float32
        Output of the target layer, as the layer gave it (before any in-place change that follows).
    gradients : (N, L, Ch, *cells) float32 or None
        Derivative of each asked logit with respect to the activations, in the order asked.
    curvatures : (N, L, Ch, *cells) float32 or None
        Second derivative (Hessian) of each asked logit with respect to the activations, times the activations.
    """

    scores: NDArray[np.float32]
    activations: NDArray[np.float32]
    gradients: NDArray[np.float32] | None = None
    curvatures: NDArray[np.float32] | None = None


@dataclass(frozen=True, kw_only=True)
class Numerics:
    """How the many passes over changed inputs are computed; everything else is in single precision as the model is.

    Attributes
    ----------
    engine : str
        What runs them: ``model`` is the model itself.
    precision : ``fp32``, ``bf16`` or ``fp16``
    deviation : float
        Greatest difference from the model's own logits on noise inputs, as a part of their spread; 0 for the model
        itself.
    """

    engine: str = "model"
    precision: str = "fp32"
    deviation: float = 0.0


@dataclass(frozen=True, kw_only=True)
class ForwardOptions:
    """What a caller may choose about the many passes over changed inputs; all other passes are the model's own.

    Attributes
    ----------
    engine : ``model``, ``fused`` or ``onnxruntime``
        The model itself; its batch norms folded into its convolutions; exported to ONNX. Not every runtime has every
        engine.
    precision : ``fp32``, ``bf16`` or ``fp16``
        The lower ones compute with a converted copy of the model.
    """

    engine: Literal["model", "fused", "onnxruntime"] = "model"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"


EXACT = ForwardOptions()
"""The model itself, as it is."""


class Classifier(Protocol):
    """A model ready to be asked; safe to ask from several threads at once."""

    members: tuple[Classifier, ...]
    """The other members of the ensemble that the card declares; `open_classifier` sets them."""

    @property
    def card(self) -> ModelCard:
        """The paper that it was opened from."""

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What it can do."""

    @property
    def device(self) -> str:
        """Where it runs: ``cpu`` or ``cuda:0``."""

    @property
    def runtime(self) -> str:
        """Name and version of what runs it."""

    @property
    def numerics(self) -> Numerics:
        """How `perturbed_scores` computes."""

    @property
    def micro_batch(self) -> int:
        """How many inputs are best given to one pass; 1 where their answers depend on those beside them.

        It follows the memory that is free, and passes of another size round otherwise: maps differ in the last bits.
        """

    @property
    def head_batch(self) -> int:
        """How many activations are best given to one pass through the head alone."""

    @property
    def registration(self) -> Registration:
        """Where the target layer's cells look on the input; measured on first use and kept."""

    def scores(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits (N, K) of a batch (N, C, *grid)."""

    def perturbed_scores(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """As `scores`, by the engine that `numerics` names; for the many passes over changed inputs.

        Raises
        ------
        OutOfMemory
            When so many inputs at once don't fit; fewer may.
        """

    def sampled_scores(self, batch: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
        """As `scores`, with the model's dropout at work; the same seed gives the same answer.

        Raises
        ------
        MethodNotApplicable
            When the model has no dropout that changes anything.
        """

    def activations(self, batch: NDArray[np.float32]) -> Capture:
        """Logits and target activations of a batch."""

    def gradients(self, batch: NDArray[np.float32], labels: Sequence[int], *, curvature: bool = False) -> Capture:
        """Logits, target activations and the derivatives of the asked logits, with `curvature` the second ones, too.

        Raises
        ------
        MethodNotApplicable
            When the part of the model after the target can't be differentiated.
        """

    def head_scores(self, batch: NDArray[np.float32], activations: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits (n, K) of the part after the target, given other activations in the place of the target's own.

        Parameters
        ----------
        batch : (1, C, *grid) float32
            The input to which the activations belong; for models with paths around the target.
        activations : (n, Ch, *cells) float32

        Raises
        ------
        MethodNotApplicable
            When that part can't be run alone.
        OutOfMemory
        """

    def head_weights(self) -> NDArray[np.float32] | None:
        """Weights (K, Ch) when the logits are a linear function of the globally averaged activations, else None."""


Opener = Callable[[ModelCard, bytes, str, ForwardOptions], Classifier]
"""From a card, its checked weights, a device and options to a running classifier."""


def open_classifier(card: ModelCard, device: str = "auto", forward: ForwardOptions = EXACT) -> Classifier:
    """Check the weights against the card and load them, with the other members of an ensemble.

    Parameters
    ----------
    card : ModelCard
    device : str
        ``auto`` (a CUDA device when there is one, else the CPU), ``cpu`` or ``cuda:N``.
    forward : ForwardOptions
        How the many passes over changed inputs are computed; exactly, unless told otherwise.

    Raises
    ------
    DigestMismatch, ModelLoadError, UnknownArchitecture, UnknownTargetLayer
        Also when the model can't give the uncertainty that its card declares.
    """
    opened = _opened(card, device, forward)
    opened.members = tuple(_opened(one, device, EXACT) for one in card.member_cards())
    _try_uncertainty(opened)
    return opened


def _opened(card: ModelCard, device: str, forward: ForwardOptions) -> Classifier:
    weights = verified_weights(card)
    try:
        opener = cast(Opener, load_named(RUNTIMES[card.runtime]))
    except ImportError as error:
        raise ModelLoadError(card.weights, f"runtime {card.runtime!r} is not installed: {error}") from error
    return opener(card, weights, device, forward)


def _try_uncertainty(classifier: Classifier) -> None:
    """Make sure before the first study that the model can do what its card declares."""
    card = classifier.card
    blank = np.zeros((1, card.input.channels, *card.input.grid), dtype=np.float32)
    for one in classifier.members:
        one.scores(blank)
    if card.uncertainty is not None and card.uncertainty.kind == "mc-dropout":
        try:
            classifier.sampled_scores(blank, card.uncertainty.seed)
        except MethodNotApplicable as error:
            raise ModelLoadError(card.weights, f"the card declares mc-dropout, but {error.reason}") from error
