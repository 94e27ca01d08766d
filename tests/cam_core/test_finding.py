"""A figure for people never claims more than the number behind it."""

from __future__ import annotations

import pytest

from cam_core.finding import percent


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
