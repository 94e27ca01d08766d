"""What a classifier says of an image: scores as findings; makes no maps."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cam_core.card import ModelCard
from cam_core.classifier import Classifier
from cam_core.errors import ExplanationFailed
from cam_core.finding import Finding, Prediction
from cam_core.image import Image, Volume
from cam_core.model_input import fitted, normalised
from cam_core.uncertainty import uncertainties


def predict(image: Image | Volume, classifier: Classifier) -> Prediction:
    """Ask a classifier about an image, and again as its card says to learn how far its scores vary.

    Scores and probabilities are those of the plain model on the plain image, whatever the card declares.

    Raises
    ------
    ImageError, ModelLoadError
    MethodNotApplicable
        When the card declares passes that the model can't make.
    ExplanationFailed
        When the model answers something that is not a number.
    """
    picture = fitted(image, classifier.card.input)
    logits = classifier.scores(normalised(picture.values, classifier.card.input))[0].astype(np.float64)
    if not np.isfinite(logits).all():
        raise ExplanationFailed("classifier", "the model's scores are not finite numbers")
    return Prediction(
        findings=tuple(
            Finding(label=label, logit=float(logit), probability=float(probability), uncertainty=uncertainty)
            for label, logit, probability, uncertainty in zip(
                classifier.card.labels,
                logits,
                probabilities(logits, classifier.card),
                uncertainties(picture, classifier),
                strict=True,
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
