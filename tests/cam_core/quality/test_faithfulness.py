"""Removal curves and masked confidence of a model whose score is the mean of its input: all of it is arithmetic."""

import numpy as np
import pytest

from cam_core.quality.faithfulness import (
    Removal,
    deletion,
    deletion_curve,
    insertion,
    insertion_curve,
    masked_confidence,
    seen_through,
)
from cam_core.quality.query import Query
from cam_core.quality.removal import baseline_input, cell_counts, relevance_ranks

ZERO = Removal(steps=10, baseline="zero")


def test_deletion_of_the_mean_model_is_one_half_for_an_even_input(mean_query, grid, values):
    even = mean_query(np.ones((1, *grid)))
    assert deletion(even, values, ZERO).value == pytest.approx(0.5)
    assert insertion(even, values, ZERO).value == pytest.approx(0.5)


def test_deletion_of_a_part_is_a_triangle(mean_query, grid, mask):
    query = mean_query(mask[None].astype(float))
    share = mask.mean()
    every_cell = Removal(steps=mask.size, baseline="zero")
    right, wrong = mask.astype(np.float32), (~mask).astype(np.float32)
    assert deletion(query, right, every_cell).value == pytest.approx(share**2 / 2)
    assert deletion(query, wrong, every_cell).value == pytest.approx(share * (1 - share) + share**2 / 2)
    assert insertion(query, right, every_cell).value == pytest.approx(share - share**2 / 2)


@pytest.mark.parametrize("baseline", ["zero", "mean", "blur"])
def test_curves_against_inputs_made_one_by_one(mean_query, grid, values, rng, baseline):
    image = rng.random((2, *grid)).astype(np.float32)
    other = baseline_input(image, baseline)
    order = np.argsort(-values.ravel())
    removal = Removal(steps=7, baseline=baseline)
    for curve, start, end in (
        (deletion_curve(mean_query(image), values, removal), image, other),
        (insertion_curve(mean_query(image), values, removal), other, image),
    ):
        expected = []
        for step in range(8):
            count = round(values.size * step / 7)
            changed = start.reshape(2, -1).copy()
            changed[:, order[:count]] = end.reshape(2, -1)[:, order[:count]]
            expected.append(changed.mean())
        assert curve.scores == pytest.approx(expected, abs=1e-6)
        assert curve.fractions == pytest.approx([round(values.size * step / 7) / values.size for step in range(8)])
        area = sum(
            (curve.fractions[i + 1] - curve.fractions[i]) * (curve.scores[i + 1] + curve.scores[i]) / 2
            for i in range(7)
        )
        assert curve.area == pytest.approx(area)
        assert curve.removal is removal


def test_baselines(rng, grid):
    image = rng.standard_normal((2, *grid)).astype(np.float32)
    assert not baseline_input(image, "zero").any()
    assert np.ptp(baseline_input(image, "mean"), axis=tuple(range(1, image.ndim))) == pytest.approx([0, 0])
    blurred = baseline_input(image, "blur")
    assert blurred.shape == image.shape
    assert blurred.std() < 0.8 * image.std()
    with pytest.raises(ValueError, match="unknown baseline"):
        baseline_input(image, "noise")


def test_cells_with_equal_values_go_in_an_order_that_the_seed_fixes(grid):
    flat = np.zeros(grid, np.float32)
    flat.flat[5] = 1
    first, again, other = (relevance_ranks(flat, seed) for seed in (0, 0, 1))
    assert first.flat[5] == 0
    assert sorted(first.ravel()) == list(range(flat.size))
    assert (first == again).all()
    assert (first != other).any()
    assert np.corrcoef(first.ravel(), np.arange(flat.size))[0, 1] < 0.3  # not from the top down


def test_steps_beyond_the_number_of_cells_are_not_repeated():
    assert cell_counts(4, 100).tolist() == [0, 1, 2, 3, 4]


def test_batches_don_t_change_the_curve(mean_query, grid, values, rng):
    image = rng.random((1, *grid))
    curves = [deletion_curve(mean_query(image, size), values, ZERO).scores for size in (1, 4, 64)]
    assert (curves[0] == curves[1]).all()
    assert (curves[0] == curves[2]).all()


def test_average_drop_and_increase_against_the_formula(mean_query, grid, values, rng):
    image = rng.random((1, *grid)).astype(np.float32)
    kept = np.maximum(values, 0) / values.max()
    own, seen = image.mean(), (image[0] * kept).mean()
    drop, increase = masked_confidence(mean_query(image), values)
    assert drop.value == pytest.approx((own - seen) / own, rel=1e-5)
    assert increase.value == 0
    half = 0.5 * image - 0.3  # its mean is under 0, and nearer to 0 when most of it is masked
    drop, increase = masked_confidence(mean_query(half - half.max()), values)
    assert increase.value == 1
    assert drop.reason == "the model's score of the image is not positive"


def test_seen_through_a_full_map_the_image_is_itself(rng, grid):
    image = rng.standard_normal((3, *grid)).astype(np.float32)
    assert seen_through(image, np.full(grid, 4.0)) == pytest.approx(image)
    assert seen_through(image, np.zeros(grid), "mean") == pytest.approx(baseline_input(image, "mean"))


def test_scores_that_are_not_finite_give_no_number(grid, values):
    query = Query(input=np.zeros((1, *grid), np.float32), score=lambda batch: np.full((len(batch), 1), np.nan), label=0)
    assert deletion(query, values, ZERO).reason == "the model gives scores that are not finite numbers"
    assert masked_confidence(query, np.abs(values))[1].reason is not None


def test_a_map_on_another_grid_is_refused(mean_query, grid, values):
    with pytest.raises(ValueError, match="the model's grid"):
        deletion(mean_query(np.ones((1, *grid))), values[1:], ZERO)
