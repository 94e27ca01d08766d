"""What a classifier says of an image: scores as findings; makes no maps."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cam_core.card import ModelCard
from cam_core.classifier import Classifier
from cam_core.errors import ExplanationFailed
from cam_core.finding import Finding, Prediction
from cam_core.image import Image, Volume
from cam_core.model_input import model_input


def predict(image: Image | Volume, classifier: Classifier) -> Prediction:
    """Ask a classifier about an image.

    Raises
    ------
    ImageError, ModelLoadError
    ExplanationFailed
        When the model answers something that is not a number.
    """
    batch, _ = model_input(image, classifier.card.input)
    logits = classifier.scores(batch)[0].astype(np.float64)
    if not np.isfinite(logits).all():
        raise ExplanationFailed("classifier", "the model's scores are not finite numbers")
    return Prediction(
        findings=tuple(
            Finding(label=label, logit=float(logit), probability=float(probability))
            for label, logit, probability in zip(
                classifier.card.labels, logits, probabilities(logits, classifier.card), strict=True
            )
        )
    )


def probabilities(logits: NDArray[np.float64], card: ModelCard) -> NDArray[np.float64]:
    """Sigmoid of each logit (..., K), or the softmax over the last axis."""
    if card.activation == "sigmoid":
        halves: NDArray[np.float64] = 0.5 * (1 + np.tanh(logits / 2))
        return halves
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    shares: NDArray[np.float64] = powers / powers.sum(axis=-1, keepdims=True)
    return shares
