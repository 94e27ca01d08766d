"""What a running classifier can do and how one is opened from its card; knows no runtime's internals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray

from cam_core.card import ModelCard, verified_weights
from cam_core.errors import ModelLoadError
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


@dataclass(frozen=True, kw_only=True, eq=False)
class Capture:
    """What one pass of a batch through a classifier left behind.

    Attributes
    ----------
    scores : (N, K) float32, logit
    activations : (N, Ch, h, w) float32
        Output of the target layer, as the layer gave it (before any in-place change that follows).
    gradients : (N, L, Ch, h, w) float32 or None
        Derivative of each asked logit with respect to the activations, in the order asked.
    """

    scores: NDArray[np.float32]
    activations: NDArray[np.float32]
    gradients: NDArray[np.float32] | None = None


class Classifier(Protocol):
    """A model ready to be asked; safe to ask from several threads at once."""

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
    def registration(self) -> Registration:
        """Where the target layer's cells look on the input; measured on first use and kept."""

    def scores(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits (N, K) of a batch (N, C, H, W)."""

    def activations(self, batch: NDArray[np.float32]) -> Capture:
        """Logits and target activations of a batch."""

    def gradients(self, batch: NDArray[np.float32], labels: Sequence[int]) -> Capture:
        """Logits, target activations and the derivatives of the asked logits.

        Raises
        ------
        MethodNotApplicable
            When the part of the model after the target can't be differentiated.
        """

    def head_weights(self) -> NDArray[np.float32] | None:
        """Weights (K, Ch) when the logits are a linear function of the globally averaged activations, else None."""


Opener = Callable[[ModelCard, bytes, str], Classifier]
"""From a card, its checked weights and a device to a running classifier."""


def open_classifier(card: ModelCard, device: str = "auto") -> Classifier:
    """Check the weights against the card and load them.

    Parameters
    ----------
    card : ModelCard
    device : str
        ``auto`` (a CUDA device when there is one, else the CPU), ``cpu`` or ``cuda:N``.

    Raises
    ------
    DigestMismatch, ModelLoadError, UnknownArchitecture, UnknownTargetLayer
    """
    weights = verified_weights(card)
    try:
        opened = cast(Opener, load_named(RUNTIMES[card.runtime]))
    except ImportError as error:
        raise ModelLoadError(card.weights, f"runtime {card.runtime!r} is not installed: {error}") from error
    return opened(card, weights, device)
