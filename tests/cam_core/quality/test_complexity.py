"""Concentration measures against sums written out."""

import math

import numpy as np
import pytest

from cam_core.quality.complexity import adcc, arcc, coherency, complexity, effective_area, entropy, gini
from cam_core.quality.measure import Figure, missing


def positive(values):
    return [max(float(one), 0.0) for one in values.ravel()]


def test_complexity_and_coherency_against_sums(values, rng):
    kept = positive(values)
    assert complexity(values).value == pytest.approx(sum(kept) / max(kept) / len(kept))
    again = values + rng.standard_normal(values.shape).astype(np.float32)
    r = np.corrcoef(values.ravel(), again.ravel())[0, 1]
    assert coherency(values, again).value == pytest.approx((1 + r) / 2, abs=1e-6)
    assert coherency(values, values).value == pytest.approx(1)
    assert coherency(values, -values).value == pytest.approx(0, abs=1e-12)


def test_gini_is_half_the_relative_mean_difference(values):
    kept = positive(values)
    difference = sum(abs(a - b) for a in kept for b in kept) / len(kept) ** 2
    assert gini(values).value == pytest.approx(difference / (2 * sum(kept) / len(kept)), rel=1e-6)


def test_entropy_against_the_sum(values):
    kept = [one for one in positive(values) if one > 0]
    shares = [one / sum(kept) for one in kept]
    expected = -sum(one * math.log(one) for one in shares) / math.log(values.size)
    assert entropy(values).value == pytest.approx(expected, rel=1e-6)


def test_the_ends_of_the_scales(grid):
    even, single = np.ones(grid, np.float32), np.zeros(grid, np.float32)
    single.flat[3] = 5
    n = even.size
    assert (gini(even).value, gini(single).value) == (pytest.approx(0), pytest.approx(1 - 1 / n))
    assert (entropy(even).value, entropy(single).value) == (pytest.approx(1), 0)
    assert (complexity(even).value, complexity(single).value) == (1, pytest.approx(1 / n))
    assert (effective_area(even).value, effective_area(single).value) == (0.5, 1 / n)


def test_effective_area_is_the_smallest_set_that_holds_half(values):
    kept = sorted(positive(values), reverse=True)
    count = next(i for i in range(1, len(kept) + 1) if sum(kept[:i]) >= sum(kept) / 2)
    assert effective_area(values).value == count / len(kept)


def test_harmonic_means():
    parts = [Figure(measure="coherency", value=0.9), Figure(measure="complexity", value=0.2)]
    drop, road = Figure(measure="average-drop", value=0.4), Figure(measure="road-combined", value=0.3)
    assert adcc(*parts, drop).value == pytest.approx(3 / (1 / 0.9 + 1 / 0.8 + 1 / 0.6))
    assert arcc(*parts, road).value == pytest.approx(3 / (1 / 0.9 + 1 / 0.8 + 1 / 0.6))
    assert arcc(*parts, Figure(measure="road-combined", value=-0.1)).value == 0
    assert adcc(*parts, missing("average-drop", "p is 0")).reason == "average-drop: p is 0"


@pytest.mark.parametrize("measure", [complexity, gini, entropy, effective_area])
def test_a_map_without_a_positive_value_gives_no_number(measure, grid):
    assert measure(-np.ones(grid, np.float32)).reason == "the map has no positive value"
    assert measure(np.zeros(grid, np.float32)).reason == "the map has no positive value"
