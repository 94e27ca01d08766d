"""How long to wait."""

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_node.sending.backoff import next_delay


def test_doubles_up_to_the_ceiling() -> None:
    longest = [next_delay(attempt, 5, 900, lambda: 1.0) for attempt in range(1, 12)]
    assert longest == pytest.approx([5, 10, 20, 40, 80, 160, 320, 640, 900, 900, 900])


def test_the_jitter_spreads_over_the_whole_step() -> None:
    source = random.Random(7)
    delays = [next_delay(4, 5, 900, source.random) for _ in range(1000)]
    assert min(delays) < 6
    assert max(delays) > 38
    assert 20 < sum(delays) / 1000 < 24


@given(st.integers(1, 10**9), st.floats(0.001, 1e4), st.floats(0.001, 1e6), st.floats(0, 1, exclude_max=True))
def test_is_positive_bounded_and_never_ends(attempt: Any, first: Any, ceiling: Any, chance: Any) -> None:
    assert 0 < next_delay(attempt, first, ceiling, lambda: chance) <= ceiling


@pytest.mark.parametrize(
    ("attempt", "first", "ceiling"), [(0, 5, 900), (1, 0, 900), (1, 5, -1), (1, float("inf"), 900)]
)
def test_nonsense_is_refused(attempt: Any, first: Any, ceiling: Any) -> None:
    with pytest.raises(ValueError):
        next_delay(attempt, first, ceiling, lambda: 0.5)
