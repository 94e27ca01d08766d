"""What a classifier says: coded labels with scores; knows no pixels and no model."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Code:
    """A coded concept.

    Attributes
    ----------
    value, scheme, meaning : str
        Code value, coding scheme designator (for example ``SCT``) and code meaning (DICOM PS3.3 section 8).
    """

    value: str
    scheme: str
    meaning: str


@dataclass(frozen=True, kw_only=True)
class Label:
    """One output of a classifier.

    Attributes
    ----------
    name : str
        The model's own name of the output.
    code : Code
        What it means.
    threshold : float, 0..1
        The probability from which on the finding counts as present.
    """

    name: str
    code: Code
    threshold: float


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A label with its score on one image.

    Attributes
    ----------
    label : Label
    logit : float, unitless
        The raw score before the activation.
    probability : float, 0..1
        The score after the card's activation (sigmoid or softmax).
    uncertainty : float or None
        Half width of an interval around the probability, where the model gives one.
    """

    label: Label
    logit: float
    probability: float
    uncertainty: float | None = None

    @property
    def present(self) -> bool:
        """Whether the probability reaches the label's threshold."""
        return self.probability >= self.label.threshold


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """All findings of one image, in the order of the card's labels."""

    findings: tuple[Finding, ...]
