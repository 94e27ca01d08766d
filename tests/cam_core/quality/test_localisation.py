"""Figures against a mask: cases whose answer is known, and slow oracles."""

import numpy as np
import pytest

from cam_core.quality.localisation import area_over, auprc, energy_inside, overlap, pointing, rank_accuracy


def test_a_map_that_is_its_mask_is_perfect(mask):
    values = mask.astype(np.float32)
    assert [one.value for one in overlap(values, mask)] == [1, 1]
    assert [one.value for one in overlap(values, mask, 0.5)] == [1, 1]
    for measure in (pointing, energy_inside, auprc, rank_accuracy):
        assert measure(values, mask).value == 1, measure


def test_a_map_that_is_everything_but_its_mask_is_worst(mask):
    values = (~mask).astype(np.float32)
    assert [one.value for one in overlap(values, mask)] == [0, 0]
    for measure in (pointing, energy_inside, rank_accuracy):
        assert measure(values, mask).value == 0, measure


def test_overlap_counts_cells(values, mask):
    scaled = (values - values.min()) / (values.max() - values.min())
    area = {tuple(one) for one in np.argwhere(scaled > 0.6)}
    truth = {tuple(one) for one in np.argwhere(mask)}
    iou, dice = overlap(values, mask, 0.6)
    assert iou.value == len(area & truth) / len(area | truth)
    assert dice.value == 2 * len(area & truth) / (len(area) + len(truth))


def test_otsu_parts_two_levels(mask, rng):
    values = np.where(mask, 0.9, 0.1) + rng.normal(0, 0.02, mask.shape)
    assert (area_over(values) != mask).mean() <= 0.01  # the threshold is one of 256 steps of a histogram


def test_a_random_map_has_chance_auprc_and_chance_energy(rng):
    mask = np.zeros((300, 300), dtype=bool)
    mask[:60, :100] = True
    values = rng.random(mask.shape).astype(np.float32)
    share = mask.mean()
    assert auprc(values, mask).value == pytest.approx(share, rel=0.1)
    assert energy_inside(values, mask).value == pytest.approx(share, rel=0.1)
    assert rank_accuracy(values, mask).value == pytest.approx(share, rel=0.15)


def test_auprc_with_ties_against_thresholds_written_out(values, mask):
    coarse = np.round(values, 1)
    expected, before = 0.0, 0.0
    for level in sorted(set(coarse.ravel().tolist()), reverse=True):
        chosen = coarse >= np.float32(level)
        recall = (chosen & mask).sum() / mask.sum()
        expected += (recall - before) * (chosen & mask).sum() / chosen.sum()
        before = recall
    assert auprc(coarse, mask).value == pytest.approx(expected)


def test_rank_accuracy_with_ties_is_the_mean_over_their_orders(values, mask, rng):
    coarse = np.round(values, 0)
    count = int(mask.sum())
    found = []
    for _ in range(400):
        order = np.lexsort((rng.random(coarse.size), -coarse.ravel()))[:count]
        found.append(mask.ravel()[order].mean())
    assert rank_accuracy(coarse, mask).value == pytest.approx(np.mean(found), abs=0.02)


def test_the_pointing_game_allows_its_tolerance_in_the_unit_of_the_spacing():
    mask = np.zeros((9, 9), dtype=bool)
    mask[4, 4] = True
    values = np.zeros((9, 9), np.float32)
    values[4, 6] = 1
    assert pointing(values, mask).value == 0
    assert pointing(values, mask, 1.9).value == 0
    assert pointing(values, mask, 2.0).value == 1
    assert pointing(values, mask, 2.0, (1.0, 1.5)).value == 0
    values[4, 4] = 1
    assert pointing(values, mask).value == 0.5


def test_energy_counts_the_positive_part_only(mask):
    values = np.where(mask, 3.0, -5.0).astype(np.float32)
    assert energy_inside(values, mask).value == 1
    values = np.where(mask, -3.0, 5.0).astype(np.float32)
    assert energy_inside(values, mask).value == 0


@pytest.mark.parametrize("judge", [pointing, energy_inside, auprc, rank_accuracy, lambda m, g: overlap(m, g)[0]])
def test_no_mask_no_figure(judge, values, mask):
    assert judge(values, np.zeros_like(mask)).reason == "the mask is empty"
    assert judge(values, np.ones_like(mask)).reason == "the mask covers everything"
    assert judge(np.zeros_like(values), mask).reason is not None
    with pytest.raises(ValueError, match="shape"):
        judge(values, mask[1:])
