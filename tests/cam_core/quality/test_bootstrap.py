"""Intervals: against draws written out, their coverage, and what patients do to them."""

import math

import numpy as np
import pytest

from cam_core.quality.bootstrap import interval, paired_interval


def test_value_is_the_mean_of_the_numbers_and_missing_ones_are_counted():
    found = interval([1.0, 2.0, math.nan, 6.0], ["a", "b", "b", "c"])
    assert (found.value, found.n, found.missing, found.patients) == (3.0, 3, 1, 3)
    assert found.low <= 3.0 <= found.high
    assert (found.draws, found.level, found.seed) == (1000, 0.95, 0)


def test_the_ends_against_clusters_drawn_by_hand(rng):
    values = rng.normal(size=60)
    patients = [f"p{one}" for one in rng.integers(0, 15, 60)]
    groups = [values[[p == name for p in patients]] for name in sorted(set(patients))]
    means = [np.concatenate([groups[i] for i in rng.integers(0, len(groups), len(groups))]).mean() for _ in range(4000)]
    found = interval(values, patients, draws=4000)
    low, high = np.percentile(means, [2.5, 97.5])
    width = high - low
    assert found.low == pytest.approx(low, abs=0.08 * width)
    assert found.high == pytest.approx(high, abs=0.08 * width)


def test_one_patient_s_images_are_one_observation(rng):
    values = np.repeat(rng.normal(size=12), 10)
    patients = [str(one) for one in np.repeat(np.arange(12), 10)]
    clustered, naive = interval(values, patients), interval(values)
    assert clustered.high - clustered.low > 2 * (naive.high - naive.low)


def test_the_interval_holds_the_truth_about_as_often_as_it_says(rng):
    held = 0
    for seed in range(200):
        found = interval(rng.normal(size=40), draws=300, seed=seed)
        held += found.low <= 0 <= found.high
    assert 0.88 <= held / 200 <= 0.99


def test_the_seed_decides():
    values = np.random.default_rng(1).random(30)
    assert interval(values, seed=3) == interval(values, seed=3)
    assert interval(values, seed=3).low != interval(values, seed=4).low


def test_a_paired_interval_is_that_of_the_differences(rng):
    easy = rng.normal(size=50)  # what both share cancels
    first, second = easy + 1.0 + 0.1 * rng.normal(size=50), easy + 0.1 * rng.normal(size=50)
    found = paired_interval(first, second)
    assert found.value == pytest.approx((first - second).mean())
    assert found.low > 0.9
    assert found.high < 1.1
    second[3] = math.nan
    assert paired_interval(first, second).n == 49


def test_nothing_to_draw_from():
    alone = interval([0.4, 0.6], ["a", "a"])
    assert alone.value == 0.5
    assert math.isnan(alone.low)
    nothing = interval([math.nan, math.nan])
    assert math.isnan(nothing.value)
    assert (nothing.n, nothing.missing) == (0, 2)
    with pytest.raises(ValueError, match="2 values of 3 patients"):
        interval([1.0, 2.0], ["a", "b", "c"])
    with pytest.raises(ValueError, match="can't be paired"):
        paired_interval([1.0], [1.0, 2.0])
