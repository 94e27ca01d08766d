"""A figure for people never claims more than the number behind it."""

from __future__ import annotations

import pytest

from cam_core.finding import Code, Finding, Label, Uncertainty, percent


@pytest.mark.parametrize(
    ("fraction", "threshold", "shown"),
    [
        (0.4996, 0.5, 49.9),
        (0.5, 0.5, 50),
        (0.50004, 0.5, 50),
        (0.49996, 0.49998, 49.9),
        (0.873, 0.5, 87.3),
        (0.873, None, 87.3),
        (0.9996, None, 99.9),
        (0.9996, 1.0, 99.9),
        (1.0, 1.0, 100),
        (0.00001, None, 0.1),
        (0.0, 0.5, 0),
    ],
)
def test_one_decimal_that_crosses_no_threshold_and_claims_no_certainty(
    fraction: float, threshold: float | None, shown: float
) -> None:
    assert percent(fraction, threshold) == shown


def test_what_reaches_its_threshold_is_shown_at_or_above_it() -> None:
    steps = [step / 9973 for step in range(9974)]
    for threshold in (0.0374, 0.49949, 0.5, 0.77777, 0.99991):
        for fraction in steps:
            assert (percent(fraction, threshold) >= percent(threshold)) == (fraction >= threshold)


@pytest.mark.parametrize(
    ("probability", "low", "high", "borderline"),
    [
        (0.8, 0.6, 0.9, False),
        (0.8, 0.5, 0.9, False),  # at the threshold is not below it
        (0.8, 0.49, 0.9, True),
        (0.8, 0.2, 0.4, True),  # the passes all say otherwise
        (0.2, 0.1, 0.4, False),
        (0.2, 0.1, 0.5, True),
        (0.2, 0.6, 0.7, True),
    ],
)
def test_a_finding_is_borderline_when_its_interval_is_not_on_its_side_of_the_threshold(
    probability: float, low: float, high: float, borderline: bool
) -> None:
    label = Label(name="Nodule", code=Code(value="1", scheme="99TEST", meaning="Nodule"), threshold=0.5)
    spread = Uncertainty(kind="mc-dropout", passes=8, mean=0.5, sd=0.1, low=low, high=high, level=0.95)
    one = Finding(label=label, logit=0.0, probability=probability, uncertainty=spread)
    assert one.borderline is borderline
    assert one.present is (probability >= 0.5)
    assert not Finding(label=label, logit=0.0, probability=probability).borderline
