"""Perturbations and their way back, and what counts; the explainer here is a filter, so equivariance is known."""

import numpy as np
import pytest
from scipy import ndimage

from cam_core.quality.perturbation import contrast, in_view, noise, rotation, shift, small_perturbations
from cam_core.quality.query import Query
from cam_core.quality.stability import perturbed, repeatability, stability

GRID = (40, 36)


@pytest.fixture
def image(rng):
    return ndimage.gaussian_filter(rng.standard_normal((1, *GRID)), (0, 2, 2)).astype(np.float32)


def local(image):
    """A map that moves with the image."""
    return ndimage.gaussian_filter(image[0], 1.0)


def steady(image):
    return Query(input=image, score=lambda batch: np.full((len(batch), 1), 0.7), label=0)


def test_a_map_that_moves_with_the_image_is_stable_and_one_that_does_not_is_not(image):
    moved = [shift((3, 0)), shift((0, -4))]
    right = stability(perturbed(steady(image), local(image), local, moved))
    assert [one.value for one in right] == pytest.approx([1, 1], abs=0.05)
    fixed = local(image)
    wrong = stability(perturbed(steady(image), fixed, lambda _: fixed, moved))
    assert wrong[0].value < 0.8
    assert wrong[1].value < right[1].value - 0.1


def test_a_shift_comes_back_exactly_where_it_was_in_view(image):
    one = shift((2, -3))
    back = one.back(one.forward(image)[0])
    box = in_view(back)
    assert box == (slice(0, 38), slice(3, 36))
    assert (back[box] == image[0][box]).all()


def test_a_turn_comes_back_nearly(image):
    one = rotation(4.0)
    back = one.back(one.forward(image)[0])
    box = in_view(back)
    assert back[box].size > 0.6 * back.size
    assert np.corrcoef(back[box].ravel(), image[0][box].ravel())[0, 1] > 0.98


def test_changes_of_grey_are_of_the_stated_size(image):
    assert np.std(noise(0.05, 3).forward(image) - image) == pytest.approx(0.05 * image.std(), rel=0.1)
    assert (noise(0.05, 3).forward(image) == noise(0.05, 3).forward(image)).all()
    wide = contrast(1.2, 0.5).forward(image)
    assert wide.std() == pytest.approx(1.2 * image.std(), rel=1e-4)
    assert wide.mean() - image.mean() == pytest.approx(0.5 * image.std(), rel=1e-3)


def test_only_changes_that_leave_the_score_count(image):
    def score(batch):
        moved = np.abs(batch - image[None]).reshape(len(batch), -1).max(axis=1)
        return np.where(moved > 1e-6, 0.2, 0.7)[:, None]

    found = perturbed(Query(input=image, score=score, label=0), local(image), local, [noise(), contrast()])
    assert [one.counted for one in found] == [False, False]
    assert [one.change for one in found] == pytest.approx([0.5, 0.5])
    assert all(
        one.reason == "the score moved beyond the tolerance under every perturbation" for one in stability(found)
    )


def test_the_given_set_serves_volumes(rng):
    volume = rng.standard_normal((1, 6, 20, 24)).astype(np.float32)
    for one in small_perturbations((6, 20, 24)):
        changed = one.forward(volume)
        assert changed.shape == volume.shape
        back = one.back(changed[0])
        assert back[in_view(back)].shape[0] == 6, one.name


def test_in_view_of_nothing_is_empty():
    assert np.full((4, 5), np.nan)[in_view(np.full((4, 5), np.nan))].size == 0


def test_repeatability_is_the_mean_ssim_of_pairs(rng):
    one = rng.random((12, 12))
    assert repeatability([one, one, one]).value == pytest.approx(1)
    assert repeatability([one, rng.random((12, 12))]).value < 0.5
    assert repeatability([one]).reason == "fewer than two models"
    assert repeatability([one, np.zeros((12, 12))]).reason == "the map is constant"
