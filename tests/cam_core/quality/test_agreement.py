"""Likeness of maps against slow oracles."""

import numpy as np
import pytest

from cam_core.quality.agreement import (
    class_sensitivity,
    disagreement,
    disagreement_map,
    spearman,
    ssim,
    top_area,
    top_iou,
)


def ranks(values):
    flat = values.ravel()
    return np.array([(flat < one).sum() + ((flat == one).sum() + 1) / 2 for one in flat])


def test_spearman_with_ties_is_the_correlation_of_mean_ranks(values, rng):
    one = np.round(values, 0)
    other = np.round(values + rng.standard_normal(values.shape), 0).astype(np.float32)
    expected = np.corrcoef(ranks(one), ranks(other))[0, 1]
    assert spearman(one, other).value == pytest.approx(expected)
    assert spearman(values, np.exp(values)).value == pytest.approx(1)
    assert spearman(values, -values).value == pytest.approx(-1)


def stretched(values):
    wide = values.astype(float)
    return (wide - wide.min()) / (wide.max() - wide.min())


def test_ssim_against_windows_written_out(values, rng):
    other = (values + rng.standard_normal(values.shape)).astype(np.float32)
    a, b = stretched(values), stretched(other)
    found = []
    for corner in np.ndindex(*(size - 6 for size in values.shape)):
        box = tuple(slice(start, start + 7) for start in corner)
        x, y = a[box].ravel(), b[box].ravel()
        vx, vy, vxy = x.var(ddof=1), y.var(ddof=1), np.cov(x, y)[0, 1]
        top = (2 * x.mean() * y.mean() + 0.01**2) * (2 * vxy + 0.03**2)
        found.append(top / ((x.mean() ** 2 + y.mean() ** 2 + 0.01**2) * (vx + vy + 0.03**2)))
    assert ssim(values, other).value == pytest.approx(np.mean(found), abs=1e-9)


def test_ssim_of_a_map_with_itself_on_another_scale_is_one(values):
    assert ssim(values, 3 * values + 7).value == pytest.approx(1, abs=1e-5)


def test_ssim_needs_three_cells_across(rng):
    assert "2 cells across" in ssim(rng.random((2, 9)), rng.random((2, 9))).reason
    assert ssim(rng.random((4, 9)), rng.random((4, 9))).reason is None


def test_top_area_has_the_highest_tenth_and_no_cell_at_the_minimum(values):
    count = round(0.1 * values.size)
    assert set(np.flatnonzero(top_area(values))) == set(np.argsort(values.ravel())[-count:])
    sparse = np.zeros(values.shape, np.float32)
    sparse.flat[:2] = 1, 2
    assert set(np.flatnonzero(top_area(sparse))) == {0, 1}


def test_iou_of_top_areas(grid):
    one = np.zeros(grid, np.float32)
    one.flat[:4] = 1
    other = np.zeros(grid, np.float32)
    other.flat[2:6] = 1
    assert top_iou(one, other).value == pytest.approx(2 / 6)
    assert top_iou(one, one).value == 1


def test_class_sensitivity_is_the_mean_absolute_correlation_of_pairs(values, rng):
    maps = np.stack([values, -values, rng.standard_normal(values.shape)]).astype(np.float32)
    matrix = np.abs(np.corrcoef(maps.reshape(3, -1)))
    assert class_sensitivity(maps).value == pytest.approx((matrix[0, 1] + matrix[0, 2] + matrix[1, 2]) / 3, abs=1e-6)
    flat = np.zeros_like(values)
    assert class_sensitivity(np.stack([values, flat])).reason == "fewer than two labels have a map that varies"


def test_disagreement_is_the_spread_of_families(values):
    other = values[tuple(slice(None, None, -1) for _ in values.shape)]
    found = disagreement_map(np.stack([values, other]))
    one, two = np.maximum(values, 0) / values.max(), np.maximum(other, 0) / other.max()
    assert found == pytest.approx(np.abs(one - two) / 2, abs=1e-6)
    seen = (one >= 0.5) | (two >= 0.5)
    assert disagreement(np.stack([values, other])).value == pytest.approx(
        (np.abs(one - two) / 2)[seen].mean(), abs=1e-6
    )
    assert disagreement(np.stack([values, values])).value == 0
    assert disagreement(np.stack([values, -np.abs(values)])).reason is not None


def test_maps_of_different_grids_are_refused(rng):
    with pytest.raises(ValueError, match="can't be compared"):
        spearman(rng.random((3, 4)), rng.random((4, 3)))
