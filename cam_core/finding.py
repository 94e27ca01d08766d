"""What a classifier says: coded labels with scores, and the one way to show them; knows no pixels and no model."""

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


def percent(fraction: float, threshold: float | None = None) -> float | int:
    """A fraction in percent as people are shown it: one decimal, which never claims more than the fraction does.

    Parameters
    ----------
    fraction : float, 0..1
    threshold : float or None, 0..1
        What the fraction is compared with. A fraction below it is shown below it, also where both round to the same.

    Returns
    -------
    float or int, percent
        A whole number without a decimal. 0 and 100 stand for exactly that; what only rounds to them is 0.1 or 99.9.
    """
    shown = round(100 * fraction, 1)
    if threshold is not None and fraction < threshold:
        shown = min(shown, round(percent(threshold) - 0.1, 1))
    if 0 < fraction < 1:
        shown = min(max(shown, 0.1), 99.9)
    return int(shown) if shown == int(shown) else shown
