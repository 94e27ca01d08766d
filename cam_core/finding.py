"""What a classifier says: coded labels with scores, and the one way to show them; knows no pixels and no model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

UncertaintyKind = Literal["test-time-augmentation", "mc-dropout", "ensemble"]


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
class Uncertainty:
    """How much a probability varies when the model is asked again in another way.

    It is about the model's answer, not about the truth: a model that is wrong in the same way each time has a narrow
    interval.

    Attributes
    ----------
    kind : ``test-time-augmentation``, ``mc-dropout`` or ``ensemble``
        Whether the picture was changed a little, parts of the network were left out at random, or other networks asked.
    passes : int
        Answers that the rest is made from.
    mean, sd : float, 0..1
        Of the probability over the passes; the deviation is the sample's (divided by passes - 1).
    low, high : float, 0..1
        Where one more such pass is expected to lie.
    level : float, 0..1
        With this probability.
    """

    kind: UncertaintyKind
    passes: int
    mean: float
    sd: float
    low: float
    high: float
    level: float


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
    uncertainty : Uncertainty or None
        Where the model's card declares one. It never moves the probability, which is the plain model's.
    """

    label: Label
    logit: float
    probability: float
    uncertainty: Uncertainty | None = None

    @property
    def present(self) -> bool:
        """Whether the probability reaches the label's threshold."""
        return self.probability >= self.label.threshold

    @property
    def borderline(self) -> bool:
        """Whether some of the interval lies on the other side of the threshold; never where there is no interval."""
        if self.uncertainty is None:
            return False
        nearest = self.uncertainty.low if self.present else self.uncertainty.high
        return (nearest >= self.label.threshold) != self.present


def borderline_words(finding: Finding) -> str:
    """Why a finding is borderline, in words for people; empty when it isn't."""
    if finding.uncertainty is None or not finding.borderline:
        return ""
    threshold = finding.label.threshold
    if finding.present:
        whole = finding.uncertainty.high < threshold
        return f"Borderline: the {'whole interval lies' if whole else 'interval reaches'} below the threshold"
    whole = finding.uncertainty.low >= threshold
    return f"Borderline: the {'whole interval lies at or above' if whole else 'interval reaches'} the threshold"


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


def interval_percent(finding: Finding) -> tuple[float, float] | None:
    """Ends of a finding's interval in percent, by the rules of `percent`; None without an interval."""
    if finding.uncertainty is None:
        return None
    threshold = finding.label.threshold
    return percent(finding.uncertainty.low, threshold), percent(finding.uncertainty.high, threshold)
